-- Puts a finished take back: one undo step, the original stays, and a failure half-way leaves no counter open.
local cut = require("punchin.cut")
local follow = require("punchin.follow")
local lanes = require("punchin.lanes")
local peaks = require("punchin.peaks")
local selection = require("punchin.selection")
local undo = require("punchin.undo")
local wire = require("punchin.wire")

local land = {}

local COLOUR = { 96, 168, 160 } -- takes made by Punchin; shape and name say it too, so that colour is never alone
local RECORDING = 4 -- bit of the play state

-- Gives each landing its takes with their sources; or nil and a sentence, and then no source is left open.
local function open_takes(landings, count)
  local opened = {}
  for _, landing in ipairs(landings) do
    landing.takes = {}
    for i = 1, count do
      local file = landing["file" .. i]
      local source = file and reaper.PCM_Source_CreateFromFile(file)
      if not source then
        for _, each in ipairs(opened) do reaper.PCM_Source_Destroy(each) end
        return nil, "REAPER cannot read " .. tostring(file)
      end
      opened[#opened + 1] = source
      local made = { source = source, name = landing["name" .. i] or "punchin" }
      made.provenance = landing["provenance" .. i] or ""
      landing.takes[i] = made
    end
  end
  return #opened > 0 or nil, "the bridge sent no take"
end

-- `from` is what a variation needs: the regions inside the file, the task and its words, and where the original is.
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
  for name, value in pairs(like) do
    reaper.SetMediaItemTakeInfo_Value(take, name, value)
  end
  return take
end

-- What is set on a take: a file that holds its source's own level and channels takes that over.
local function set_on(take)
  local values = {}
  for _, name in ipairs({ "D_VOL", "D_PAN", "D_PANLAW", "I_CHANMODE" }) do
    values[name] = reaper.GetMediaItemTakeInfo_Value(take, name)
  end
  return values
end

local function add_takes(item, takes, start_offset_s, like, from)
  local first
  for _, made in ipairs(takes) do
    local take = add_take(item, made, start_offset_s, like or {}, from)
    first = first or take
  end
  reaper.SetActiveTake(first)
  reaper.UpdateItemInProject(item)
end

-- Where the regions are in a file: start and length of each, in seconds.
local function regions_in(landing)
  local words = {}
  for _, part in ipairs(landing.parts) do
    words[#words + 1] = wire.number(part.start_s - landing.position_s)
    words[#words + 1] = wire.number(part.end_s - part.start_s)
  end
  return table.concat(words, " ")
end

local function origin(record, landing, more)
  local from = {
    regions = regions_in(landing),
    task = record.task,
    land = record.land,
    params = record.params,
    track = landing.track,
    post_fx = record.post_fx or "",
  }
  for name, value in pairs(more) do from[name] = value end
  return from
end

local function guid_of(item)
  local _, guid = reaper.GetSetMediaItemInfo_String(item, "GUID", "", false)
  return guid
end

-- In the group of the items that it replaces, so that it moves with what is muted below it.
local function bare_item(track, position_s, length_s, replaced)
  local item = reaper.AddMediaItemToTrack(track)
  if replaced[1] then
    reaper.SetMediaItemInfo_Value(item, "I_GROUPID", reaper.GetMediaItemInfo_Value(replaced[1], "I_GROUPID"))
  end
  reaper.SetMediaItemInfo_Value(item, "D_POSITION", position_s)
  reaper.SetMediaItemInfo_Value(item, "D_LENGTH", length_s)
  reaper.SetMediaItemInfo_Value(item, "B_LOOPSRC", 0)
  for _, name in ipairs({ "D_FADEINLEN", "D_FADEOUTLEN" }) do -- preferences may add fades to new items
    reaper.SetMediaItemInfo_Value(item, name, 0)
    reaper.SetMediaItemInfo_Value(item, name .. "_AUTO", -1)
  end
  return item
end

-- Each way finds its place, and gives a function that lands there and the words for it; nil when it has none. All of
-- a job's places are found before anything is changed.

-- Whether REAPER wrote out a take's audio for the job.
local function was_captured(record, guid)
  for line in (record.captures or ""):gmatch("[^\n]+") do
    if wire.decode(line).take == guid then return true end
  end
  return false
end

-- New takes on the item that was heard, wherever it is now. nil when there is no such item any more.
local function as_takes(proj, record, landing)
  local place = follow.covering(proj, landing)
  if not place or selection.locked(place.item) then return nil end
  return function()
    local _, guid = reaper.GetSetMediaItemTakeInfo_String(place.take, "GUID", "", false)
    local start_offset_s, like = math.max(place.then_s - landing.position_s + place.trimmed_s, 0), set_on(place.take)
    if was_captured(record, place.heard) then like.I_CHANMODE = 0 end -- its channels were read as they are heard
    add_takes(place.item, landing.takes, start_offset_s, like, origin(record, landing, { take = guid }))
  end, "landed on the item"
end

-- More takes for an item that Punchin made or landed on before, the regions where they are in the take that was
-- varied, whichever is active by now.
local function onto_item(proj, record, landing)
  local item = follow.item(proj, record.onto)
  local like = item and not selection.locked(item) and follow.take(item, record.onto_take)
  if not like then return nil end
  local _, text = reaper.GetSetMediaItemTakeInfo_String(like, "P_EXT:punchin_from", "", false)
  local old = wire.unpack(text)
  local old_start_s = tonumber((old.regions or ""):match("%S+")) or 0
  local region_in_item_s = (old_start_s - reaper.GetMediaItemTakeInfo_Value(like, "D_STARTOFFS"))
    / reaper.GetMediaItemTakeInfo_Value(like, "D_PLAYRATE")
  local start_offset_s = landing.start_s - landing.position_s - region_in_item_s
  local length_s = reaper.GetMediaItemInfo_Value(item, "D_LENGTH")
  if start_offset_s < -1e-4 or start_offset_s + length_s > landing.length_s + 1e-4 then return nil end
  return function()
    old.regions, old.params = regions_in(landing), record.params
    add_takes(item, landing.takes, math.max(start_offset_s, 0), set_on(like), old)
  end, "landed as a variation"
end

-- Mutes what lies between two times, splitting where an item reaches over them. Returns the muted pieces' GUIDs.
local function mute_between(items, start_s, end_s)
  local muted = {}
  for _, item in ipairs(items) do
    local item_start_s, item_end_s = selection.bounds(item)
    if cut.meets(item_start_s, item_end_s, start_s, end_s) then
      local middle = cut.at(item, start_s) or item
      cut.at(middle, end_s)
      reaper.SetMediaItemInfo_Value(middle, "B_MUTE", 1)
      muted[#muted + 1] = guid_of(middle)
    end
  end
  return table.concat(muted, " ")
end

local function any_locked(items)
  for _, item in ipairs(items) do
    if selection.locked(item) then return true end
  end
  return false
end

-- The originals are split and the part between muted; one new item holds the takes. nil when the items changed.
local function as_split(proj, record, landing)
  local items, moved_s = follow.together(proj, landing)
  local track = follow.track(proj, landing.track)
  if not items or not track or any_locked(items) then return nil end
  return function()
    local start_s = landing.item_s + moved_s
    local muted = mute_between(items, start_s, start_s + landing.item_length_s)
    local item = bare_item(track, start_s, landing.item_length_s, items)
    local lane = lanes.playing(track, items)
    if lane then reaper.SetMediaItemInfo_Value(item, "I_FIXEDLANE", lane) end
    local start_offset_s = landing.item_s - landing.position_s
    add_takes(item, landing.takes, start_offset_s, nil, origin(record, landing, { muted = muted }))
  end, #items > 0 and "landed; the original is muted below" or "landed where nothing was"
end

-- A new fixed lane that plays the whole track with the takes in it, the copy below them muted, for a variation to hear;
-- the lanes that were there stay as they are.
local function as_lane(proj, record, landing)
  local items, moved_s = follow.together(proj, landing)
  local track = follow.track(proj, landing.track)
  if not items or not track or not lanes.can_have(track) then return nil end
  return function()
    local start_s = landing.item_s + moved_s
    local lane, copies = lanes.add(track, landing.takes[1].name)
    local muted = mute_between(copies, start_s, start_s + landing.item_length_s)
    local item = bare_item(track, start_s, landing.item_length_s, items)
    reaper.SetMediaItemInfo_Value(item, "I_FIXEDLANE", lane)
    add_takes(item, landing.takes, landing.item_s - landing.position_s, nil, origin(record, landing, { muted = muted }))
  end, "landed on a new lane"
end

-- An empty track below `old` and in the same folder, as REAPER's own "Insert new track" makes it; nil is the project's
-- end.
local function new_track(proj, old)
  local index = old and math.floor(reaper.GetMediaTrackInfo_Value(old, "IP_TRACKNUMBER")) or reaper.CountTracks(proj)
  reaper.InsertTrackAtIndex(index, false)
  local track, closes = reaper.GetTrack(proj, index), old and reaper.GetMediaTrackInfo_Value(old, "I_FOLDERDEPTH") or 0
  if closes < 0 then
    reaper.SetMediaTrackInfo_Value(old, "I_FOLDERDEPTH", 0)
    reaper.SetMediaTrackInfo_Value(track, "I_FOLDERDEPTH", closes)
  end
  return track
end

-- A new track below the old one: asked for, or because the item is gone. Only the active tab can get a track.
-- What is asked for in place of the original mutes it, if it is still as it was heard.
local function as_track(proj, record, landing, replaces)
  local items, moved_s
  if replaces then items, moved_s = follow.together(proj, landing) end
  if not items or any_locked(items) then items, moved_s = {}, 0 end
  return function()
    local start_s, end_s, more = landing.start_s, landing.end_s, {}
    if landing.how == "track" then start_s, end_s = landing.item_s, landing.item_s + landing.item_length_s end
    local start_offset_s = start_s - landing.position_s
    start_s, end_s = start_s + moved_s, end_s + moved_s
    if #items > 0 then more.muted = mute_between(items, start_s, end_s) end
    local track = new_track(proj, follow.track(proj, landing.track))
    reaper.GetSetMediaTrackInfo_String(track, "P_NAME", landing.title, true)
    local item = bare_item(track, start_s, end_s - start_s, items)
    add_takes(item, landing.takes, start_offset_s, nil, origin(record, landing, more))
  end, "landed on a new track"
end

local WAYS = { take = as_takes, split = as_split, lane = as_lane }

local function set_numbers(fields, names)
  for _, name in ipairs(names) do
    fields[name] = tonumber(fields[name])
    if not fields[name] then return nil end
  end
  return fields
end

-- The regions that were asked for, as the record has them; nil when it is damaged.
local function parts_of(record)
  local parts = {}
  for line in (record.parts or ""):gmatch("[^\n]+") do
    parts[#parts + 1] = set_numbers(wire.decode(line), { "start_s", "end_s" })
    if not parts[#parts] then return nil end
  end
  return parts
end

-- The items of a `done` event: `N.name` is a field of item N. Each has the regions that it holds (`parts`), as one
-- from the first one's start to the last one's end. nil when the event is damaged.
local function landings_of(record, event)
  local parts, landings = parts_of(record), {}
  for n = 1, tonumber(event.items) or 0 do landings[n] = { parts = {} } end
  for name, value in pairs(event) do
    local n, field = name:match("^(%d+)%.(.+)$")
    if n and landings[tonumber(n)] then landings[tonumber(n)][field] = value end
  end
  if not parts or #landings == 0 then return nil end
  for _, landing in ipairs(landings) do
    if not set_numbers(landing, { "position_s", "length_s", "item_s", "item_length_s" }) then return nil end
    for number in (landing.regions or ""):gmatch("%d+") do table.insert(landing.parts, parts[tonumber(number)]) end
    local first = landing.parts[1]
    if not first then return nil end
    landing.title, landing.track, landing.anchors = first.title, first.track, first.anchors
    landing.start_s, landing.end_s = first.start_s, first.end_s
    for _, part in ipairs(landing.parts) do
      landing.start_s, landing.end_s = math.min(landing.start_s, part.start_s), math.max(landing.end_s, part.end_s)
    end
  end
  return landings
end

-- The way that was asked for, else a new track: what lands it, and words. Or false and the reason to try again later.
local function way_of(proj, record, landing)
  local way = record.onto ~= nil and record.onto ~= "" and onto_item or WAYS[landing.how]
  if way then
    local act, words = way(proj, record, landing)
    if act then return act, words end
  end
  if reaper.EnumProjects(-1) ~= proj then return false, "waits until its project tab is in front" end
  local replaces = landing.how == "track" and (record.task == "repaint" or record.task == "cover")
  local act, words = as_track(proj, record, landing, replaces)
  return act, way and words .. ": the item was changed meanwhile, or is locked" or words
end

-- All of it in one undo step, `count` takes an item. Results as `land.done`.
local function go(proj, record, landings, count)
  local acts, said, known = {}, {}, {}
  table.sort(landings, function(a, b) return a.item_s > b.item_s end) -- a split leaves what is left of it as it was
  for i, landing in ipairs(landings) do
    local act, words = way_of(proj, record, landing)
    if not act then return false, words end
    acts[i] = act
    if not known[words] then said[#said + 1] = words end
    known[words] = true
  end
  local opened, why = open_takes(landings, count) -- last: what waits for its tab is tried many times
  if not opened then return nil, why end
  undo.one_step(proj, "punchin: " .. record.title, function()
    cut.hard(function()
      for _, act in ipairs(acts) do act() end
    end)
  end)
  return true, table.concat(said, "; ")
end

-- Lands a `done` event. Returns true and words; or false and the reason to try again later; or nil and a sentence.
function land.done(proj, record, event)
  if reaper.GetPlayStateEx(proj) & RECORDING ~= 0 then return false, "waits for the end of the recording" end
  local landings = landings_of(record, event)
  if not landings then return nil, "the event is damaged" end
  local landed, words = go(proj, record, landings, tonumber(event.count) or 0)
  if landed then
    for _, landing in ipairs(landings) do
      for _, made in ipairs(landing.takes) do peaks.build(proj, made.source) end
    end
  end
  return landed, words
end

return land
