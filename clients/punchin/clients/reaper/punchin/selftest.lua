-- What only a real REAPER can tell, measured in an empty project and written down for `punchin doctor`.
local bridge = require("punchin.bridge")
local catalogue = require("punchin.catalogue")
local config = require("punchin.config")
local cut = require("punchin.cut")
local files = require("punchin.files")
local json = require("punchin.json")
local undo = require("punchin.undo")

local selftest = {}

local RATE_HZ = 48000
local CLICK_FRAME, CLICK = 12000, 0.5 -- a quarter of a second in
local WAIT_S = 10

local checks = json.array()

local function check(name, ok, found)
  checks[#checks + 1] = { name = name, ok = ok and true or false, found = tostring(found) }
end

local function missing_functions()
  local newer, missing = {}, {}
  for _, name in ipairs(catalogue.newer) do newer[name] = true end
  for _, name in ipairs(catalogue.functions) do
    if not newer[name] and not reaper.APIExists(name) then missing[#missing + 1] = name end
  end
  return missing
end

-- One second of mono float with a single sample that is not zero.
local function click_file(path)
  local zeros = string.pack("<f", 0)
  local data = zeros:rep(CLICK_FRAME) .. string.pack("<f", CLICK) .. zeros:rep(RATE_HZ - CLICK_FRAME - 1)
  local head = string.pack("<c4I4c4c4I4I2I2I4I4I2I2c4I4", "RIFF", 36 + #data, "WAVE", "fmt ", 16, 3, 1, RATE_HZ,
    RATE_HZ * 4, 4, 32, "data", #data)
  os.remove(path)
  return files.write_whole(path, head .. data)
end

local function add_test_item(proj, path)
  local index = reaper.CountTracks(proj)
  reaper.InsertTrackAtIndex(index, false)
  local item = reaper.AddMediaItemToTrack(reaper.GetTrack(proj, index))
  reaper.SetMediaItemInfo_Value(item, "D_POSITION", 1)
  reaper.SetMediaItemInfo_Value(item, "D_LENGTH", 1)
  reaper.SetMediaItemInfo_Value(item, "D_VOL", 0.5)
  reaper.SetMediaItemInfo_Value(item, "B_LOOPSRC", 0)
  local take = reaper.AddTakeToMediaItem(item)
  reaper.SetMediaItemTake_Source(take, reaper.PCM_Source_CreateFromFile(path))
  reaper.SetMediaItemTakeInfo_Value(take, "D_VOL", 0.5)
  reaper.UpdateItemInProject(item)
  return item, take
end

local function accessor_peak(take)
  local buffer = reaper.new_array(RATE_HZ)
  buffer.clear(0)
  local accessor = reaper.CreateTakeAudioAccessor(take)
  local ok, state = pcall(reaper.GetAudioAccessorSamples, accessor, RATE_HZ, 1, 0, RATE_HZ, buffer)
  reaper.DestroyAudioAccessor(accessor)
  if not ok then return nil, state end
  local frame, peak = -1, 0
  for i, value in ipairs(buffer.table()) do
    if math.abs(value) > math.abs(peak) then frame, peak = i - 1, value end
  end
  return frame, peak
end

-- Time of a take accessor counts from the item's start, and neither item gain nor take gain is in what it gives.
local function check_accessor(take)
  local frame, peak = accessor_peak(take)
  check("accessor time counts from the item", frame == CLICK_FRAME, frame)
  check("accessor gives samples before gain", frame and math.abs(peak - CLICK) < 1e-6, peak)
end

local function check_split(item)
  local right = cut.hard(function() return cut.at(item, 1.5) end)
  local offset = right and reaper.GetMediaItemTakeInfo_Value(reaper.GetActiveTake(right), "D_STARTOFFS")
  check("split gives the right half its offset", offset and math.abs(offset - 0.5) < 1e-6, offset)
  local length = reaper.GetMediaItemInfo_Value(item, "D_LENGTH")
  check("split leaves the left half its length", math.abs(length - 0.5) < 1e-6, length)
end

-- What project files and ini keep must come back as it was.
local function check_store(proj)
  local text = "a%20b.c-d_e{}%25"
  reaper.SetProjExtState(proj, "PUNCHIN_SELFTEST", "20990101-000000-0000000A", text)
  local _, key, value = reaper.EnumProjExtState(proj, "PUNCHIN_SELFTEST", 0)
  check("the project's store keeps keys and values", key == "20990101-000000-0000000A" and value == text, key)
  reaper.SetProjExtState(proj, "PUNCHIN_SELFTEST", "20990101-000000-0000000A", "")
  local more = reaper.EnumProjExtState(proj, "PUNCHIN_SELFTEST", 0)
  check("an empty value deletes a key", not more, more)
  local long = ("a%20b"):rep(800)
  reaper.SetProjExtState(proj, "PUNCHIN_SELFTEST", "LONG", long)
  local _, kept = reaper.GetProjExtState(proj, "PUNCHIN_SELFTEST", "LONG")
  check("the project's store keeps 4,000 bytes", kept == long, #kept)
  reaper.SetProjExtState(proj, "PUNCHIN_SELFTEST", "LONG", "")
end

local function check_measures(proj)
  local _, start_qn, end_qn, numerator, denominator = reaper.TimeMap_GetMeasureInfo(proj, 0)
  check("measure 0 begins at the start", math.abs(start_qn) < 1e-9, start_qn)
  check("a measure is as long as its signature", math.abs(end_qn - numerator * 4 / denominator) < 1e-9, end_qn)
end

local function check_project(proj, spool)
  local path = spool .. "/audio/selftest.wav"
  local written, why = click_file(path)
  check("files are written and renamed", written, why)
  if not written then return end
  undo.one_step(proj, "punchin: self-test", function()
    local item, take = add_test_item(proj, path)
    check("a file becomes a take", reaper.GetMediaItemTake_Source(take) ~= nil, path)
    check_accessor(take)
    check_split(item)
  end)
  check("tracks during the test", reaper.CountTracks(proj) == 1, reaper.CountTracks(proj))
  reaper.Undo_DoUndo2(proj)
  check("one undo step takes all back", reaper.CountTracks(proj) == 0, reaper.CountTracks(proj))
  os.remove(path)
end

local function write_report()
  local path = reaper.GetResourcePath() .. "/Data/Punchin/selftest.json"
  local failed = 0
  for _, each in ipairs(checks) do
    if not each.ok then failed = failed + 1 end
  end
  os.remove(path)
  local written, why = files.write_whole(path, json.encode({
    reaper = reaper.GetAppVersion(), os = reaper.GetOS(), lua = _VERSION, checks = checks,
  }))
  local text = string.format("%d checks, %d failed.\n", #checks, failed)
  reaper.ShowConsoleMsg("!SHOW:Punchin self-test: " .. text)
  reaper.Help_Set("Punchin self-test: " .. text .. (written and path or tostring(why)), true)
end

-- The bridge is another process: its beat is waited for without holding REAPER up.
local function wait_for_bridge(settings, until_s)
  if bridge.alive(settings) or reaper.time_precise() > until_s then
    check("the bridge starts and beats", bridge.alive(settings), files.read(settings.spool .. "/bridge.stderr") or "")
    return write_report()
  end
  reaper.defer(function() wait_for_bridge(settings, until_s) end)
end

function selftest.run()
  local settings, why = config.load()
  if not settings then return reaper.MB(why, "Punchin", 0) end
  local proj = reaper.EnumProjects(-1)
  if reaper.CountTracks(proj) > 0 then
    return reaper.MB("Open an empty project tab first: the self-test works in it and takes it back.", "Punchin", 0)
  end
  local missing = missing_functions()
  check("REAPER has every function", #missing == 0, table.concat(missing, " "))
  check_measures(proj)
  check_store(proj)
  check_project(proj, settings.spool)
  bridge.ensure(settings)
  wait_for_bridge(settings, reaper.time_precise() + WAIT_S)
end

return selftest
