-- A track's items as values: what a take file and its surroundings need, and nothing that lives only in REAPER.
local cut = require("punchin.cut")
local json = require("punchin.json")
local selection = require("punchin.selection")

local describe = {}

local FIXED_LANES = 2 -- I_FREEMODE
local LEAD_S = 0.06 -- a take's first fade lies before its region, and is this long at most

local function guid_of(item)
  local _, guid = reaper.GetSetMediaItemInfo_String(item, "GUID", "", false)
  return guid
end

local function take_guid_of(take)
  local _, guid = reaper.GetSetMediaItemTakeInfo_String(take, "GUID", "", false)
  return guid
end

-- Whether an item's lane plays; always where a track has none. -1: in a lane that is gone from view with the others.
function describe.lane_plays(track, item)
  local state = reaper.GetMediaItemInfo_Value(item, "C_LANEPLAYS")
  if state < 0 then return false end
  return state ~= 0 or reaper.GetMediaTrackInfo_Value(track, "I_FREEMODE") ~= FIXED_LANES
end

local function fade(item, side)
  return {
    length_s = reaper.GetMediaItemInfo_Value(item, "D_FADE" .. side .. "LEN"),
    auto_s = math.max(reaper.GetMediaItemInfo_Value(item, "D_FADE" .. side .. "LEN_AUTO"), 0), -- -1: none
    shape = reaper.GetMediaItemInfo_Value(item, "C_FADE" .. side .. "SHAPE"),
    curve = reaper.GetMediaItemInfo_Value(item, "D_FADE" .. side .. "DIR"),
  }
end

-- Section and reverse sources hide the file behind them.
local function is_wrapped(source)
  return reaper.GetMediaSourceParent(source) ~= nil
end

-- Whether samples can be read from the file as they are: no rate, pitch, markers, section or reverse between.
local function is_plain(take, source)
  return reaper.GetMediaItemTakeInfo_Value(take, "D_PLAYRATE") == 1
    and reaper.GetMediaItemTakeInfo_Value(take, "D_PITCH") == 0
    and reaper.GetTakeNumStretchMarkers(take) == 0
    and not is_wrapped(source)
end

local function has_effects(take)
  for i = 0, reaper.TakeFX_GetCount(take) - 1 do
    if reaper.TakeFX_GetEnabled(take, i) then return true end
  end
  return false
end

-- Why an item cannot be heard faithfully, or nil.
local function obstacle(item, take, source)
  if reaper.GetMediaItemInfo_Value(item, "B_ALLTAKESPLAY") ~= 0 then return "plays all its takes; glue it first" end
  if reaper.TakeIsMIDI(take) then return "is MIDI; render it first (Item: Apply track FX to items as new take)" end
  if not source then return "has no source" end
  if has_effects(take) then return "has take FX; a new take would lose them, so glue the item first" end
  if reaper.CountTakeEnvelopes(take) > 0 then return "has take envelopes; glue the item first" end
  if reaper.GetMediaSourceNumChannels(source) > 2 then return "has more than two channels; split it to stereo first" end
  if is_plain(take, source) then
    local file = reaper.GetMediaSourceFileName(source)
    if file == "" then return "plays no file; glue it first" end -- a click source, a generator of timecode
    if not reaper.file_exists(file) then return "is missing its file " .. file end
  end
  return nil
end

-- What a landing needs to find an item again: see follow.lua.
local function anchor_of(item, take, source)
  local start_s, end_s = selection.bounds(item)
  while reaper.GetMediaSourceParent(source) do source = reaper.GetMediaSourceParent(source) end
  return {
    guid = guid_of(item),
    take = take_guid_of(take),
    file = reaper.GetMediaSourceFileName(source),
    position_s = start_s,
    length_s = end_s - start_s,
    offset_s = reaper.GetMediaItemTakeInfo_Value(take, "D_STARTOFFS"),
    rate = reaper.GetMediaItemTakeInfo_Value(take, "D_PLAYRATE"),
  }
end

local function take_values(take)
  return {
    guid = take_guid_of(take),
    name = reaper.GetTakeName(take),
    volume = reaper.GetMediaItemTakeInfo_Value(take, "D_VOL"),
    pan = reaper.GetMediaItemTakeInfo_Value(take, "D_PAN"),
    pan_law = reaper.GetMediaItemTakeInfo_Value(take, "D_PANLAW"),
    channel_mode = reaper.GetMediaItemTakeInfo_Value(take, "I_CHANMODE"),
  }
end

local function item_values(item, take)
  local start_s, end_s = selection.bounds(item)
  return {
    guid = guid_of(item),
    position_s = start_s,
    length_s = end_s - start_s,
    volume = reaper.GetMediaItemInfo_Value(item, "D_VOL"),
    loops = reaper.GetMediaItemInfo_Value(item, "B_LOOPSRC") ~= 0,
    fade_in = fade(item, "IN"),
    fade_out = fade(item, "OUT"),
    take = take_values(take),
  }
end

local function plays(track, item, as_if)
  local guid = guid_of(item)
  if as_if.without[guid] then return false end
  if reaper.GetMediaItemInfo_Value(item, "B_MUTE") ~= 0 and not as_if.unmuted[guid] then return false end
  return describe.lane_plays(track, item)
end

local function add_item(found, item, take, source)
  local values = item_values(item, take)
  if is_plain(take, source) then
    values.source = {
      path = reaper.GetMediaSourceFileName(source),
      offset_s = reaper.GetMediaItemTakeInfo_Value(take, "D_STARTOFFS"),
    }
  else
    table.insert(found.captures, { values = values, channels = reaper.GetMediaSourceNumChannels(source) })
  end
  table.insert(found.items, values)
end

local function heard_take(item, as_if)
  return as_if.instead[guid_of(item)] or reaper.GetActiveTake(item)
end

-- The items that sound between two times whatever they hold, MIDI too, each with its take and that one's source.
local function sounding(track, from_s, to_s, as_if)
  local found = {}
  for i = 0, reaper.CountTrackMediaItems(track) - 1 do
    local item = reaper.GetTrackMediaItem(track, i)
    local start_s, end_s = selection.bounds(item)
    local take = heard_take(item, as_if)
    local source = take and reaper.GetMediaItemTake_Source(take)
    if source and start_s < to_s and end_s > from_s and plays(track, item, as_if) then
      found[#found + 1] = { item, take, source }
    end
  end
  return found
end

-- What sounds where a take of `region` may land, as what a landing finds it by again: a new item begins up to LEAD_S
-- before its region, and is cut beyond any fade at its edges.
function describe.anchors(track, region, as_if)
  local from_s, longest_s, anchors = region.start_s - LEAD_S, 0, {}
  for _, found in ipairs(sounding(track, from_s, region.end_s, as_if)) do
    for _, side in ipairs({ "IN", "OUT" }) do
      local values = fade(found[1], side)
      longest_s = math.max(longest_s, values.length_s, values.auto_s)
    end
  end
  for i, found in ipairs(sounding(track, from_s - longest_s, region.end_s + longest_s, as_if)) do
    anchors[i] = anchor_of(table.unpack(found))
  end
  return anchors
end

-- A file as the only item of a track, from `position_s` on.
function describe.rendered(path, position_s, length_s)
  local no_fade = { length_s = 0.0, auto_s = 0.0, shape = 0.0, curve = 0.0 }
  return {
    guid = reaper.genGuid(""),
    position_s = position_s,
    length_s = length_s,
    volume = 1.0,
    loops = false,
    fade_in = no_fade,
    fade_out = no_fade,
    take = { guid = reaper.genGuid(""), name = "", volume = 1.0, pan = 0.0, pan_law = -1.0, channel_mode = 0.0 },
    source = { path = path, offset_s = 0.0 },
  }
end

local function touches_any(item, spans)
  local start_s, end_s = selection.bounds(item)
  for _, span in ipairs(spans) do
    if cut.meets(start_s, end_s, span.start_s, span.end_s) then return true end
  end
  return false
end

-- Items of `track` that sound within any of `windows`: { items, captures, notes }, or nil and a sentence.
-- captures: takes whose audio REAPER must write out first, because their file is not what one hears.
-- What cannot be rendered in any of `regions` is refused; outside them it is left out and noted.
-- as_if: how the project is looked at: instead (item GUID -> take), unmuted and without (sets of item GUIDs).
function describe.items(track, windows, regions, as_if)
  local found = { items = json.array(), captures = {}, notes = {} }
  for i = 0, reaper.CountTrackMediaItems(track) - 1 do
    local item = reaper.GetTrackMediaItem(track, i)
    local take = heard_take(item, as_if)
    if take and touches_any(item, windows) and plays(track, item, as_if) then
      local source = reaper.GetMediaItemTake_Source(take)
      local why, start_s = obstacle(item, take, source), selection.bounds(item)
      local sentence = why and string.format('Item "%s" at %.2f s %s.', reaper.GetTakeName(take), start_s, why)
      if why and touches_any(item, regions) then return nil, sentence end
      if why then
        table.insert(found.notes, sentence .. " It is not heard.")
      else
        add_item(found, item, take, source)
      end
    end
  end
  return found
end

describe.guid_of = guid_of
describe.take_guid_of = take_guid_of

return describe
