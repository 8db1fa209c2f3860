-- Puts a finished take back: one undo step, the original stays, and a failure half-way leaves no counter open.
local follow = require("punchin.follow")
local lanes = require("punchin.lanes")
local peaks = require("punchin.peaks")
local undo = require("punchin.undo")
local wire = require("punchin.wire")

local land = {}

local COLOUR = { 96, 168, 160 } -- takes made by Punchin; shape and name say it too, so that colour is never alone
local RECORDING = 4 -- bit of the play state

-- The takes of a `done` event with their sources, read before anything is changed; or nil and a sentence.
local function takes_of(event)
  local takes = {}
  for i = 1, tonumber(event.count) or 0 do
    local file = event["file" .. i]
    local source = file and reaper.PCM_Source_CreateFromFile(file)
    if not source then return nil, "REAPER cannot read " .. tostring(file) end
    takes[i] = { source = source, name = event["name" .. i] or "punchin", provenance = event["provenance" .. i] or "" }
  end
  if #takes == 0 then return nil, "the bridge sent no take" end
  return takes
end

-- `from` is what a variation needs: the region inside the file, the task and its words, and where the original is.
local function add_take(item, made, start_offset_s, like, from)
  local take = reaper.AddTakeToMediaItem(item)
  reaper.SetMediaItemTake_Source(take, made.source)
  reaper.GetSetMediaItemTakeInfo_String(take, "P_NAME", made.name, true)
  reaper.GetSetMediaItemTakeInfo_String(take, "P_EXT:punchin", made.provenance, true)
  reaper.GetSetMediaItemTakeInfo_String(take, "P_EXT:punchin_from", wire.pack(from), true)
  reaper.SetMediaItemTakeInfo_Value(take, "D_STARTOFFS", start_offset_s)
  reaper.SetMediaItemTakeInfo_Value(take, "D_PLAYRATE", 1)
  reaper.SetMediaItemTakeInfo_Value(take, "B_PPITCH", 1)
  reaper.SetMediaItemTakeInfo_Value(take, "I_CUSTOMCOLOR", reaper.ColorToNative(table.unpack(COLOUR)) | 0x1000000)
  if like then -- the file holds the source's own level, so the new take takes over what is set on the old one
    for _, name in ipairs({ "D_VOL", "D_PAN", "I_CHANMODE" }) do
      reaper.SetMediaItemTakeInfo_Value(take, name, reaper.GetMediaItemTakeInfo_Value(like, name))
    end
  end
  return take
end

local function add_takes(item, takes, start_offset_s, like, from)
  local first
  for _, made in ipairs(takes) do
    local take = add_take(item, made, start_offset_s, like, from)
    first = first or take
  end
  reaper.SetActiveTake(first)
  reaper.UpdateItemInProject(item)
end

local function origin(record, event, more)
  local from = {
    start_s = tonumber(record.start_s) - event.position_s,
    length_s = tonumber(record.end_s) - tonumber(record.start_s),
    task = record.task,
    land = record.land,
    params = record.params,
    track = record.track,
    post_fx = record.post_fx or "",
  }
  for name, value in pairs(more) do from[name] = value end
  return from
end

local function guid_of(item)
  local _, guid = reaper.GetSetMediaItemInfo_String(item, "GUID", "", false)
  return guid
end

local function bare_item(track, position_s, length_s)
  local item = reaper.AddMediaItemToTrack(track)
  reaper.SetMediaItemInfo_Value(item, "D_POSITION", position_s)
  reaper.SetMediaItemInfo_Value(item, "D_LENGTH", length_s)
  reaper.SetMediaItemInfo_Value(item, "B_LOOPSRC", 0)
  for _, name in ipairs({ "D_FADEINLEN", "D_FADEOUTLEN" }) do -- preferences may add fades to new items
    reaper.SetMediaItemInfo_Value(item, name, 0)
    reaper.SetMediaItemInfo_Value(item, name .. "_AUTO", -1)
  end
  return item
end

local function locked(item)
  return math.floor(reaper.GetMediaItemInfo_Value(item, "C_LOCK")) & 1 ~= 0
end

-- New takes on the item that was heard, wherever it is now. nil when there is no such item any more.
local function as_takes(proj, record, event, takes)
  local place = follow.covering(proj, record)
  if not place or locked(place.item) then return nil end
  undo.one_step(proj, "punchin: " .. event.title, function()
    local _, guid = reaper.GetSetMediaItemTakeInfo_String(place.take, "GUID", "", false)
    local start_offset_s = place.then_s - event.position_s + place.trimmed_s
    add_takes(place.item, takes, math.max(start_offset_s, 0), place.take, origin(record, event, { take = guid }))
  end)
  return true, "landed on the item"
end

-- More takes for an item that Punchin made or landed on before, the region in the same place.
local function onto_item(proj, record, event, takes)
  local item = follow.item(proj, record.onto)
  if not item or locked(item) then return nil end
  local like = reaper.GetActiveTake(item)
  local _, text = reaper.GetSetMediaItemTakeInfo_String(like, "P_EXT:punchin_from", "", false)
  local old = wire.unpack(text)
  local region_offset_s = tonumber(record.start_s) - event.position_s -- of the region in the new file
  local region_in_item_s = (tonumber(old.start_s) or 0) - reaper.GetMediaItemTakeInfo_Value(like, "D_STARTOFFS")
  local start_offset_s = region_offset_s - region_in_item_s
  local length_s = reaper.GetMediaItemInfo_Value(item, "D_LENGTH")
  if start_offset_s < -1e-4 or start_offset_s + length_s > event.length_s + 1e-4 then return nil end
  undo.one_step(proj, "punchin: " .. event.title, function()
    old.start_s, old.params = region_offset_s, record.params
    add_takes(item, takes, math.max(start_offset_s, 0), like, old)
  end)
  return true, "landed as a variation"
end

local function without_inner_fade(item, name)
  reaper.SetMediaItemInfo_Value(item, name, 0)
  reaper.SetMediaItemInfo_Value(item, name .. "_AUTO", -1)
end

-- Mutes what lies between two times, splitting where an item reaches over them. Returns the muted pieces' GUIDs.
local function mute_between(items, start_s, end_s)
  local muted = {}
  for _, item in ipairs(items) do
    local middle = item
    local right = reaper.SplitMediaItem(middle, start_s) -- nil when the item does not reach over it
    if right then
      without_inner_fade(middle, "D_FADEOUTLEN")
      middle = right
    end
    local after = reaper.SplitMediaItem(middle, end_s)
    if after then without_inner_fade(after, "D_FADEINLEN") end
    reaper.SetMediaItemInfo_Value(middle, "B_MUTE", 1)
    muted[#muted + 1] = guid_of(middle)
  end
  return table.concat(muted, " ")
end

local function any_locked(items)
  for _, item in ipairs(items) do
    if locked(item) then return true end
  end
  return false
end

-- The originals are split and the part between muted; one new item holds the takes. nil when the items changed.
local function as_split(proj, record, event, takes)
  local items, moved_s = follow.together(proj, record)
  local track = follow.track(proj, record.track)
  if not items or not track or any_locked(items) then return nil end
  undo.one_step(proj, "punchin: " .. event.title, function()
    local start_s = event.item_s + moved_s
    local muted = mute_between(items, start_s, start_s + event.item_length_s)
    local item = bare_item(track, start_s, event.item_length_s)
    if items[1] and reaper.GetMediaTrackInfo_Value(track, "I_FREEMODE") == 2 then
      local lane = reaper.GetMediaItemInfo_Value(items[1], "I_FIXEDLANE")
      reaper.SetMediaItemInfo_Value(item, "I_FIXEDLANE", lane)
    end
    add_takes(item, takes, event.item_s - event.position_s, nil, origin(record, event, { muted = muted }))
  end)
  return true, "landed; the original is muted below"
end

-- A new fixed lane that plays the whole track with the takes in it; the lanes that were there stay as they are.
local function as_lane(proj, record, event, takes)
  local items, moved_s = follow.together(proj, record)
  local track = follow.track(proj, record.track)
  if not items or not track then return nil end
  undo.one_step(proj, "punchin: " .. event.title, function()
    local start_s = event.item_s + moved_s
    local lane = lanes.add(track, start_s, start_s + event.item_length_s, takes[1].name)
    local item = bare_item(track, start_s, event.item_length_s)
    reaper.SetMediaItemInfo_Value(item, "I_FIXEDLANE", lane)
    add_takes(item, takes, event.item_s - event.position_s, nil, origin(record, event, {}))
  end)
  return true, "landed on a new lane"
end

-- A new track below the old one: asked for, or because the item is gone. Only the active tab can get a track.
-- What is asked for in place of the original mutes it, if it is still as it was heard.
local function as_track(proj, record, event, takes, replaces)
  local old = follow.track(proj, record.track)
  local index = old and math.floor(reaper.GetMediaTrackInfo_Value(old, "IP_TRACKNUMBER")) or reaper.CountTracks(proj)
  local items = replaces and follow.together(proj, record) or {}
  if any_locked(items) then items = {} end
  undo.one_step(proj, "punchin: " .. event.title, function()
    local start_s, end_s, more = tonumber(record.start_s), tonumber(record.end_s), {}
    if event.how == "track" then start_s, end_s = event.item_s, event.item_s + event.item_length_s end
    if #items > 0 then more.muted = mute_between(items, start_s, end_s) end
    reaper.InsertTrackAtIndex(index, false)
    local track = reaper.GetTrack(proj, index)
    reaper.GetSetMediaTrackInfo_String(track, "P_NAME", event.title, true)
    local item = bare_item(track, start_s, end_s - start_s)
    add_takes(item, takes, start_s - event.position_s, nil, origin(record, event, more))
  end)
  return true, "landed on a new track"
end

local WAYS = { take = as_takes, split = as_split, lane = as_lane }

-- The event's numbers as numbers, or nil: what cannot be read is not landed.
local function with_numbers(record, event)
  for _, name in ipairs({ "position_s", "length_s", "item_s", "item_length_s" }) do
    event[name] = tonumber(event[name])
    if not event[name] then return nil end
  end
  event.title = event.title or record.title
  return tonumber(record.start_s) and tonumber(record.end_s)
end

-- The way that was asked for, else a new track. Results as `land.done`.
local function go(proj, record, event, takes)
  local way = record.onto ~= nil and record.onto ~= "" and onto_item or WAYS[event.how]
  if way then
    local landed, words = way(proj, record, event, takes)
    if landed then return true, words end
  end
  if reaper.EnumProjects(-1) ~= proj then return false, "waits until its project tab is in front" end
  local replaces = event.how == "track" and (record.task == "repaint" or record.task == "cover")
  local landed, words = as_track(proj, record, event, takes, replaces)
  if way then words = words .. ": the item was changed meanwhile" end
  return landed, words
end

-- Lands a `done` event. Returns true and words; or false and the reason to try again later; or nil and a sentence.
function land.done(proj, record, event)
  if reaper.GetPlayStateEx(proj) & RECORDING ~= 0 then return false, "waits for the end of the recording" end
  if not with_numbers(record, event) then return nil, "the event is damaged" end
  local takes, why = takes_of(event)
  if not takes then return nil, why end
  local landed, words = go(proj, record, event, takes)
  if landed then
    for _, made in ipairs(takes) do peaks.build(proj, made.source) end
  end
  return landed, words
end

return land
