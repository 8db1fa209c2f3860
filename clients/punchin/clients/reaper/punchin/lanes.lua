-- Fixed lanes (REAPER 7): a new lane that holds copies of what plays on a track.
local describe = require("punchin.describe")

local lanes = {}

local FREE, FIXED_LANES = 1, 2 -- I_FREEMODE
local SINCE = 7 -- the REAPER that has them
local ALONE = 1 -- C_LANEPLAYS: this lane and no other

-- An item's state with new GUIDs, so that no two items share one.
local function as_new(chunk)
  return (chunk:gsub("(I?GUID ){%x+%-[%x%-]+}", function(key) return key .. reaper.genGuid("") end))
end

local function copy_of(track, item)
  local ok, chunk = reaper.GetItemStateChunk(item, "", false)
  local copy = reaper.AddMediaItemToTrack(track)
  if not ok or not reaper.SetItemStateChunk(copy, as_new(chunk), false) then error("an item cannot be copied") end
  return copy
end

-- What plays now, before anything is added.
local function playing(track)
  local items = {}
  for i = 0, reaper.CountTrackMediaItems(track) - 1 do
    local item = reaper.GetTrackMediaItem(track, i)
    local sounds = reaper.GetMediaItemInfo_Value(item, "B_MUTE") == 0
    if sounds and describe.lane_plays(track, item) then items[#items + 1] = item end
  end
  return items
end

-- The lane in which a new item in place of `items` sounds: theirs, else one that plays. The highest: no other masks it.
-- nil where a track has no lanes.
function lanes.playing(track, items)
  if reaper.GetMediaTrackInfo_Value(track, "I_FREEMODE") ~= FIXED_LANES then return nil end
  local highest = 0
  for _, item in ipairs(items) do
    highest = math.max(highest, reaper.GetMediaItemInfo_Value(item, "I_FIXEDLANE"))
  end
  if #items > 0 then return highest end
  for lane = 0, reaper.GetMediaTrackInfo_Value(track, "I_NUMFIXEDLANES") - 1 do
    if reaper.GetMediaTrackInfo_Value(track, "C_LANEPLAYS:" .. lane) ~= 0 then highest = lane end
  end
  return highest
end

-- Whether a track can get one. False and why not.
function lanes.can_have(track)
  local version = tonumber(reaper.GetAppVersion():match("^(%d+)"))
  if version and version < SINCE then
    return false, "Fixed lanes need REAPER 7, this is " .. reaper.GetAppVersion()
  end
  if reaper.GetMediaTrackInfo_Value(track, "I_FREEMODE") == FREE then
    local _, name = reaper.GetTrackName(track)
    return false, "Track \"" .. name .. "\" positions its items freely, so it has no lanes"
  end
  return true
end

-- Adds a lane that plays alone: copies of what the track plays. Returns its number and the copies.
function lanes.add(track, name)
  local items = playing(track)
  if reaper.GetMediaTrackInfo_Value(track, "I_FREEMODE") ~= FIXED_LANES then
    reaper.SetMediaTrackInfo_Value(track, "I_FREEMODE", FIXED_LANES)
    reaper.UpdateTimeline()
  end
  local lane = math.floor(reaper.GetMediaTrackInfo_Value(track, "I_NUMFIXEDLANES"))
  reaper.SetMediaTrackInfo_Value(track, "I_NUMFIXEDLANES", lane + 1)
  local copies = {}
  for i, item in ipairs(items) do
    copies[i] = copy_of(track, item)
    reaper.SetMediaItemInfo_Value(copies[i], "I_FIXEDLANE", lane)
  end
  reaper.SetMediaTrackInfo_Value(track, "C_LANEPLAYS:" .. lane, ALONE)
  reaper.GetSetMediaTrackInfo_String(track, "P_LANENAME:" .. lane, name, true)
  return lane, copies
end

return lanes
