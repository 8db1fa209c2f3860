-- Where the region's audio is now: items are moved, trimmed, split and deleted while a take is being made.
local cut = require("punchin.cut")
local selection = require("punchin.selection")
local wire = require("punchin.wire")

local follow = {}

local SAME_S = 1e-4 -- below a sample pair at 48 kHz nothing has moved
local COVER_S = 1e-3 -- an item that ends this much before a bar line was cut at it
local NUMBERS = { "position_s", "length_s", "offset_s", "rate" }

-- The anchors of a job record, with numbers as numbers.
function follow.anchors(record)
  local anchors = {}
  for line in (record.anchors or ""):gmatch("[^\n]+") do
    local anchor = wire.decode(line)
    for _, name in ipairs(NUMBERS) do anchor[name] = tonumber(anchor[name]) end
    anchors[#anchors + 1] = anchor
  end
  return anchors
end

local function guid_of(item)
  local _, guid = reaper.GetSetMediaItemInfo_String(item, "GUID", "", false)
  return guid
end

function follow.item(proj, guid)
  for i = 0, reaper.CountMediaItems(proj) - 1 do
    local item = reaper.GetMediaItem(proj, i)
    if guid_of(item) == guid then return item end
  end
  return nil
end

function follow.track(proj, guid)
  for _, track in ipairs(selection.every_track(proj)) do
    if reaper.GetTrackGUID(track) == guid then return track end
  end
  return nil
end

-- The take of an item with that GUID, nil when it has none.
function follow.take(item, guid)
  for i = 0, reaper.CountTakes(item) - 1 do
    local take = reaper.GetTake(item, i)
    if take then -- an empty take lane is nil
      local _, this = reaper.GetSetMediaItemTakeInfo_String(take, "GUID", "", false)
      if this == guid then return take end
    end
  end
  return nil
end

local function file_of(take)
  local source = reaper.GetMediaItemTake_Source(take)
  while source and reaper.GetMediaSourceParent(source) do source = reaper.GetMediaSourceParent(source) end
  return source and reaper.GetMediaSourceFileName(source) or ""
end

-- The take that was heard: by GUID, or in a split's right half, where GUIDs are new, by its file.
local function heard_take(item, anchor)
  local take = follow.take(item, anchor.take)
  if take then return take end
  for i = 0, reaper.CountTakes(item) - 1 do
    take = reaper.GetTake(item, i)
    if take and file_of(take) == anchor.file then return take end
  end
  return nil
end

-- How far the audio of `item` has moved in project time since the request, and how much was cut off its left;
-- nil when it does not play that take at that rate any more.
local function movement(item, anchor)
  local take = heard_take(item, anchor)
  if not take or reaper.GetMediaItemTakeInfo_Value(take, "D_PLAYRATE") ~= anchor.rate then return nil end
  local offset_s = reaper.GetMediaItemTakeInfo_Value(take, "D_STARTOFFS")
  local trimmed_s = (offset_s - anchor.offset_s) / anchor.rate
  local start_s = selection.bounds(item)
  return start_s - trimmed_s - anchor.position_s, trimmed_s, take
end

local function holds(item, anchor, record, allowed)
  local moved_s, trimmed_s, take = movement(item, anchor)
  if not moved_s then return nil end
  local near = false
  for _, delta_s in ipairs(allowed or { moved_s }) do near = near or math.abs(moved_s - delta_s) < SAME_S end
  local start_s, end_s = selection.bounds(item)
  local region_start_s, region_end_s = tonumber(record.start_s) + moved_s, tonumber(record.end_s) + moved_s
  local inside = region_start_s > start_s - COVER_S and region_end_s < end_s + COVER_S
  local in_file = trimmed_s > -SAME_S and end_s - start_s + trimmed_s < anchor.length_s + SAME_S
  if not (near and inside and in_file) then return nil end
  return { item = item, take = take, heard = anchor.take, then_s = anchor.position_s, trimmed_s = trimmed_s }
end

-- Of the items that were heard the one that the take was made for: a neighbour may reach into the region too.
local function made_for(record)
  local anchors = follow.anchors(record)
  for _, anchor in ipairs(anchors) do
    if anchor.guid == record.item then return anchor end
  end
  return anchors[1]
end

-- The item that still holds the whole region: { item, take, heard, then_s, trimmed_s }, or nil.
-- heard: the GUID that the take had then; a split's right half has new ones.
-- then_s: where the item began when it was heard; trimmed_s: what was cut off its left since.
-- First the item itself, wherever it went; then, after a split, a piece on the same track that moved no other way.
function follow.covering(proj, record)
  local anchor = made_for(record)
  if not anchor then return nil end
  local item, allowed = follow.item(proj, anchor.guid), { 0 }
  if item then
    local found = holds(item, anchor, record)
    if found then return found end
    local moved_s = movement(item, anchor)
    if moved_s then allowed[2] = moved_s end
  end
  local track = follow.track(proj, record.track)
  for i = 0, (track and reaper.CountTrackMediaItems(track) or 0) - 1 do
    local found = holds(reaper.GetTrackMediaItem(track, i), anchor, record, allowed)
    if found then return found end
  end
  return nil
end

-- The items that lay where a landing's new one goes: it begins before the region, and may end behind it.
local function under(landing)
  local anchors, end_s = {}, landing.item_s + landing.item_length_s
  for _, anchor in ipairs(follow.anchors(landing)) do
    if cut.meets(anchor.position_s, anchor.position_s + anchor.length_s, landing.item_s, end_s) then
      anchors[#anchors + 1] = anchor
    end
  end
  return anchors
end

-- All items that the new one replaces, if they are as they were or moved together: list and movement; nil otherwise.
function follow.together(proj, record)
  local items, moved_s = {}, nil
  for i, anchor in ipairs(under(record)) do
    local item = follow.item(proj, anchor.guid)
    if not item or reaper.GetTrackGUID(reaper.GetMediaItem_Track(item)) ~= record.track then return nil end
    local this_s, trimmed_s = movement(item, anchor)
    local start_s, end_s = selection.bounds(item)
    if not this_s or math.abs(trimmed_s) > SAME_S or math.abs(end_s - start_s - anchor.length_s) > SAME_S then
      return nil
    end
    if moved_s and math.abs(this_s - moved_s) > SAME_S then return nil end
    items[i], moved_s = item, moved_s or this_s
  end
  return items, moved_s or 0
end

return follow
