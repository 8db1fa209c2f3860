-- Requests that still lack audio: it is written out, one request after the other, then they leave for the inbox.
local capture = require("punchin.capture")
local show = require("punchin.show")
local wire = require("punchin.wire")

local drafts = {}

local queue = {} -- { proj, id, record, spool, takes, running }

local function path_of(spool, id)
  return spool .. "/draft/" .. id .. ".json"
end

-- Whether a request has not left yet. A cancel just removes its file.
function drafts.holds(spool, id)
  return reaper.file_exists(path_of(spool, id))
end

-- Takes a job's request up; false when it is no draft.
function drafts.add(spool, proj, id, record)
  if (record.captures or "") == "" or not drafts.holds(spool, id) then return false end
  for _, work in ipairs(queue) do
    if work.id == id then return true end
  end
  local work = { proj = proj, id = id, record = record, spool = spool, takes = {}, paths = {} }
  for line in record.captures:gmatch("[^\n]+") do
    local take = wire.decode(line)
    table.insert(work.takes, take)
    table.insert(work.paths, take.path)
  end
  table.insert(queue, work)
  return true
end

function drafts.waiting()
  return #queue > 0
end

-- Ends the first request without its leaving: the sound written for it goes, the draft itself unless it is kept.
local function drop(work, keeps)
  table.remove(queue, 1)
  if work.running then capture.stop(work.running) end
  for _, path in ipairs(work.paths) do os.remove(path) end
  if not keeps then os.remove(path_of(work.spool, work.id)) end
end

local function begin_next(work)
  local take = table.remove(work.takes, 1)
  local running, why = capture.start(
    work.proj, take.take, take.path, tonumber(take.channels), tonumber(take.length_s), tonumber(work.record.rate_hz))
  work.running = running
  show.line(work.record.title .. ": reading its audio")
  return running ~= nil, why
end

-- How a request ended, with the reason; nil while it is worked on.
local function advance(work)
  if not reaper.ValidatePtr2(0, work.proj, "ReaProject*") then
    drop(work, true)
    return "closed"
  end
  if not drafts.holds(work.spool, work.id) then
    drop(work)
    return "cancelled"
  end
  if work.running then
    local whole, why = capture.step(work.running)
    if whole then work.running = nil end
    if whole ~= nil then return nil end
    drop(work)
    return "failed", why
  end
  if #work.takes == 0 then
    table.remove(queue, 1)
    os.rename(path_of(work.spool, work.id), work.spool .. "/inbox/" .. work.id .. ".json")
    return "sent"
  end
  local begun, why = begin_next(work)
  if begun then return nil end
  drop(work)
  return "failed", why
end

-- One step of the first request: it, and how it ended once it is no longer worked on: "sent", "cancelled", "closed"
-- (its project was: `add` begins again when that is back), or "failed" with the reason.
function drafts.step()
  local work = queue[1]
  local ok, ending, why = xpcall(advance, debug.traceback, work)
  if ok then return work, ending, why end
  drop(work) -- else each watcher that begins would stop at it again
  return work, "failed", "REAPER refused its audio: " .. tostring(ending)
end

-- Lets go of what is read. The drafts stay, and begin again with the next watcher.
function drafts.stop()
  if queue[1] and queue[1].running then capture.stop(queue[1].running) end
end

return drafts
