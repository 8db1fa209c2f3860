-- Comparing and choosing takes: REAPER's own take switch does the A/B, these do what it does not know.
local follow = require("punchin.follow")
local selection = require("punchin.selection")
local undo = require("punchin.undo")
local wire = require("punchin.wire")

local takes = {}

local NEXT_TAKE = 40125 -- Take: Switch items to next take
local DELETE_ACTIVE_TAKE = 40129 -- Take: Delete active take from items

local function from_of(take)
  local known, text = reaper.GetSetMediaItemTakeInfo_String(take, "P_EXT:punchin_from", "", false)
  if not known or text == "" then return nil end
  return wire.unpack(text)
end

local function is_kept(take)
  local _, text = reaper.GetSetMediaItemTakeInfo_String(take, "P_EXT:punchin_kept", "", false)
  return text == "yes"
end

local function chosen_items(proj)
  local items = selection.items(proj)
  if #items == 0 then return nil, "No item is selected. Select the item with the takes first." end
  return items
end

function takes.next(proj)
  local items, why = chosen_items(proj)
  if not items then return nil, why end
  reaper.Main_OnCommandEx(NEXT_TAKE, 0, proj)
  local take = reaper.GetActiveTake(items[1])
  return take and reaper.GetTakeName(take) or "empty take"
end

-- Marks the active Punchin take of each selected item, so that "Discard others" leaves it alone.
function takes.keep(proj)
  local items, why = chosen_items(proj)
  if not items then return nil, why end
  local kept = {}
  for _, item in ipairs(items) do
    local take = reaper.GetActiveTake(item)
    if take and from_of(take) then kept[#kept + 1] = take end
  end
  if #kept == 0 then return nil, "The active take was not made by Punchin; switch to one that was." end
  undo.one_step(proj, "punchin: keep take", function()
    for _, take in ipairs(kept) do
      reaper.GetSetMediaItemTakeInfo_String(take, "P_EXT:punchin_kept", "yes", true)
      reaper.SetMediaItemTakeInfo_Value(take, "I_CUSTOMCOLOR", 0)
    end
  end)
  return #kept
end

local function select_only(all, chosen)
  for _, item in ipairs(all) do reaper.SetMediaItemSelected(item, item == chosen) end
end

local function spare_takes(item)
  local active, spare = reaper.GetActiveTake(item), {}
  for i = 0, reaper.CountTakes(item) - 1 do
    local take = reaper.GetTake(item, i)
    if take and take ~= active and from_of(take) and not is_kept(take) then spare[#spare + 1] = take end
  end
  return active, spare
end

-- Removes Punchin's takes that are neither active nor kept from the selected items; never a take of the user's own,
-- and none of a locked item. How many, and how many of these items are locked.
function takes.discard_others(proj)
  local items, why = chosen_items(proj)
  if not items then return nil, why end
  local found, count, locked = {}, 0, 0
  for _, item in ipairs(items) do
    local active, spare = spare_takes(item)
    if selection.locked(item) then
      locked = locked + math.min(#spare, 1)
    else
      found[#found + 1], count = { item = item, active = active, spare = spare }, count + #spare
    end
  end
  if count == 0 then return 0, locked end
  undo.one_step(proj, "punchin: discard other takes", function()
    for _, each in ipairs(found) do
      for _, take in ipairs(each.spare) do -- the API cannot delete a take, the action deletes the active one
        select_only(items, each.item)
        reaper.SetActiveTake(take)
        reaper.Main_OnCommandEx(DELETE_ACTIVE_TAKE, 0, proj)
      end
      if each.active and #each.spare > 0 then reaper.SetActiveTake(each.active) end
    end
    for _, item in ipairs(items) do reaper.SetMediaItemSelected(item, true) end
  end)
  return count, locked
end

local function guid_set(text)
  local set = {}
  for guid in (text or ""):gmatch("%S+") do set[guid] = true end
  return set
end

-- What a variation of the item's active take must be asked for: spans, order. Or nil and a sentence.
local function variation(proj, item)
  local take = reaper.GetActiveTake(item)
  local from = take and from_of(take)
  if not from then return nil, "The active take was not made by Punchin. Repaint the region first." end
  if from.post_fx == "yes" then
    return nil, "This take was made from the track's rendered sound. Undo to the original, then repaint it again."
  end
  local _, guid = reaper.GetSetMediaItemInfo_String(item, "GUID", "", false)
  local rate = reaper.GetMediaItemTakeInfo_Value(take, "D_PLAYRATE") -- not 1 where the tempo was changed since
  local file_start_s = selection.bounds(item) - reaper.GetMediaItemTakeInfo_Value(take, "D_STARTOFFS") / rate
  local as_if = { instead = {}, unmuted = guid_set(from.muted), without = {} }
  local track = reaper.GetMediaItem_Track(item)
  if from.take then
    as_if.instead[guid] = follow.take(item, from.take)
    if not as_if.instead[guid] then return nil, "The original take was removed from this item; undo that first." end
  else
    as_if.without[guid] = true
    track = follow.track(proj, from.track)
    if not track then return nil, "The original track is gone; undo that first." end
  end
  local spans = {}
  for start_s, length_s in (from.regions or ""):gmatch("(%S+) (%S+)") do
    start_s = file_start_s + tonumber(start_s) / rate
    spans[#spans + 1] = { track = track, start_s = start_s, end_s = start_s + tonumber(length_s) / rate }
  end
  if #spans == 0 then return nil, "This take was made by an older Punchin. Repaint the region again." end
  local _, varied = reaper.GetSetMediaItemTakeInfo_String(take, "GUID", "", false)
  local order = { task = from.task, land = from.land, params = wire.unpack(from.params), as_if = as_if }
  order.onto, order.onto_take = guid, varied
  return spans, order
end

-- Spans and orders for variations of all selected items.
function takes.variations(proj)
  local items, why = chosen_items(proj)
  if not items then return nil, why end
  local asked = {}
  for i, item in ipairs(items) do
    local spans, order = variation(proj, item)
    if not spans then return nil, order end
    asked[i] = { spans = spans, order = order }
  end
  return asked
end

return takes
