-- Writes a take's audio into a WAV of 32-bit floats, a second of sound a tick, so that REAPER stays alive.
local capture = {}

local HEADER_BYTES = 58 -- RIFF, fmt with cbSize, fact, data
local PACKED_AT_ONCE = 4096 -- string.pack takes as many arguments as Lua's stack allows
local MOST_BYTES = 2 ^ 32 - 1 -- of a WAV, whose sizes have 32 bits
local MOST_BEGINNINGS = 5 -- a take that changes while it is read is read again so often

local function header(channels, rate_hz, frames)
  local data_bytes = frames * channels * 4
  return string.pack("<c4I4c4", "RIFF", HEADER_BYTES - 8 + data_bytes, "WAVE")
    .. string.pack("<c4I4I2I2I4I4I2I2I2", "fmt ", 18, 3, channels, rate_hz, rate_hz * channels * 4, channels * 4, 32, 0)
    .. string.pack("<c4I4I4", "fact", 4, frames)
    .. string.pack("<c4I4", "data", data_bytes)
end

local function packed(values, count)
  local parts = {}
  for first = 1, count, PACKED_AT_ONCE do
    local last = math.min(first + PACKED_AT_ONCE - 1, count)
    parts[#parts + 1] = string.pack("<" .. ("f"):rep(last - first + 1), table.unpack(values, first, last))
  end
  return table.concat(parts)
end

-- Whether a WAV can hold so much.
function capture.fits(channels, length_s, rate_hz)
  return HEADER_BYTES + math.ceil(length_s * rate_hz) * channels * 4 <= MOST_BYTES
end

-- A capture in progress, or nil and a sentence. Call `step` once a tick until it says that it is done.
function capture.start(proj, take_guid, path, channels, length_s, rate_hz)
  local take = reaper.GetMediaItemTakeByGUID(proj, take_guid)
  if not take then return nil, "the take was deleted before its audio could be read" end
  local file, why = io.open(path, "wb")
  if not file then return nil, why end
  local frames = math.ceil(length_s * rate_hz)
  file:write(header(channels, rate_hz, frames))
  return {
    proj = proj, take = take_guid, file = file, channels = channels, rate_hz = rate_hz, frames = frames,
    at = 0, beginnings = 0,
  }
end

local function close_accessor(work)
  if work.accessor then reaper.DestroyAudioAccessor(work.accessor) end
  work.accessor = nil
end

-- One accessor reads it all: what stretches and shifts a take goes on from block to block. A change begins anew.
local function ready(work, take)
  if work.accessor and not reaper.AudioAccessorStateChanged(work.accessor) then return true end
  close_accessor(work)
  if work.beginnings == MOST_BEGINNINGS then return nil, "the take changes while its audio is read" end
  work.accessor, work.at, work.beginnings = reaper.CreateTakeAudioAccessor(take), 0, work.beginnings + 1
  return work.file:seek("set", HEADER_BYTES)
end

local function read_block(work, count)
  local buffer = reaper.new_array(count * work.channels)
  buffer.clear(0)
  local ok, state = pcall(
    reaper.GetAudioAccessorSamples, work.accessor, work.rate_hz, work.channels, work.at / work.rate_hz, count, buffer)
  if not ok or state < 0 then return nil, "REAPER cannot read the take's audio" end
  return packed(buffer.table(), count * work.channels)
end

-- Writes the next second. Returns true when the file is whole, false when there is more; nil and a sentence otherwise.
function capture.step(work)
  local take = reaper.GetMediaItemTakeByGUID(work.proj, work.take)
  if not take then return nil, "the take was deleted while its audio was read" end
  local begun, why = ready(work, take)
  if not begun then return nil, why end
  local count = math.min(work.rate_hz, work.frames - work.at)
  local block, problem = read_block(work, count)
  local written = block and work.file:write(block)
  if not written then return nil, problem or "the disk is full" end
  work.at = work.at + count
  if work.at < work.frames then return false end
  close_accessor(work)
  local closed, close_error = work.file:close()
  if not closed then return nil, close_error end
  return true
end

-- Ends a capture half-way, or one that failed; one that has ended by itself may be stopped as well.
function capture.stop(work)
  close_accessor(work)
  if io.type(work.file) == "file" then work.file:close() end
end

return capture
