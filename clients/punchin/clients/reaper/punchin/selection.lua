-- What the user means: razor edits, else the time selection, else selected items, else the region under the cursor.
local selection = {}

local function every_track(proj)
  local tracks = {}
  for i = 0, reaper.CountTracks(proj) - 1 do tracks[#tracks + 1] = reaper.GetTrack(proj, i) end
  return tracks
end

local function bounds(item)
  local start_s = reaper.GetMediaItemInfo_Value(item, "D_POSITION")
  return start_s, start_s + reaper.GetMediaItemInfo_Value(item, "D_LENGTH")
end

-- Selected items in the project's order. Read at once: the API's own "selected item N" changes under a script's feet.
function selection.items(proj)
  local items = {}
  for i = 0, reaper.CountMediaItems(proj) - 1 do
    local item = reaper.GetMediaItem(proj, i)
    if reaper.IsMediaItemSelected(item) then items[#items + 1] = item end
  end
  return items
end

-- Whether the user locked an item: no action of REAPER changes it then, and none of Punchin's.
function selection.locked(item)
  return math.floor(reaper.GetMediaItemInfo_Value(item, "C_LOCK")) & 1 ~= 0
end

local function from_razor_edits(proj)
  local spans = {}
  for _, track in ipairs(every_track(proj)) do
    local _, text = reaper.GetSetMediaTrackInfo_String(track, "P_RAZOREDITS", "", false)
    for start_s, end_s, envelope in text:gmatch('(%S+)%s+(%S+)%s+"([^"]*)"') do
      if envelope == "" then -- an envelope's area holds no audio
        spans[#spans + 1] = { track = track, start_s = tonumber(start_s), end_s = tonumber(end_s) }
      end
    end
  end
  return spans
end

local function selected_tracks(proj)
  local tracks = {}
  for i = 0, reaper.CountSelectedTracks2(proj, false) - 1 do
    tracks[#tracks + 1] = reaper.GetSelectedTrack2(proj, i, false)
  end
  return tracks
end

-- Tracks of selected items that touch the span; without such items the selected tracks.
local function tracks_for(proj, start_s, end_s)
  local tracks, known = {}, {}
  for _, item in ipairs(selection.items(proj)) do
    local item_start_s, item_end_s = bounds(item)
    local track = reaper.GetMediaItem_Track(item)
    local guid = reaper.GetTrackGUID(track)
    if item_start_s < end_s and item_end_s > start_s and not known[guid] then
      known[guid] = true
      tracks[#tracks + 1] = track
    end
  end
  if #tracks == 0 then tracks = selected_tracks(proj) end
  return tracks
end

local function spans_on(tracks, start_s, end_s)
  local spans = {}
  for i, track in ipairs(tracks) do spans[i] = { track = track, start_s = start_s, end_s = end_s } end
  return spans
end

-- One span for each run of touching selected items on a track.
local function from_items(proj)
  local by_track, order = {}, {}
  for _, item in ipairs(selection.items(proj)) do
    local track = reaper.GetMediaItem_Track(item)
    local guid = reaper.GetTrackGUID(track)
    if not by_track[guid] then
      by_track[guid] = { track = track, pieces = {} }
      order[#order + 1] = guid
    end
    local start_s, end_s = bounds(item)
    table.insert(by_track[guid].pieces, { start_s, end_s })
  end
  local spans = {}
  for _, guid in ipairs(order) do
    local found, span = by_track[guid], nil
    table.sort(found.pieces, function(a, b) return a[1] < b[1] end)
    for _, piece in ipairs(found.pieces) do
      if span and piece[1] <= span.end_s + 1e-6 then
        span.end_s = math.max(span.end_s, piece[2])
      else
        span = { track = found.track, start_s = piece[1], end_s = piece[2] }
        spans[#spans + 1] = span
      end
    end
  end
  return spans
end

local function from_region(proj)
  local _, index = reaper.GetLastMarkerAndCurRegion(proj, reaper.GetCursorPositionEx(proj))
  if index < 0 then return nil end
  local _, _, start_s, end_s = reaper.EnumProjectMarkers3(proj, index)
  return start_s, end_s
end

-- A list of { track, start_s, end_s }, or nil and a sentence for the user.
function selection.spans(proj)
  local spans = from_razor_edits(proj)
  if #spans > 0 then return spans end
  local start_s, end_s = reaper.GetSet_LoopTimeRange2(proj, false, false, 0, 0, false)
  if start_s == end_s then
    spans = from_items(proj)
    if #spans > 0 then return spans end
    start_s, end_s = from_region(proj)
    if not start_s then
      return nil, "Nothing is selected. Drag a time selection over the bars, or select items, then press the key again."
    end
  end
  spans = spans_on(tracks_for(proj, start_s, end_s), start_s, end_s)
  if #spans == 0 then return nil, "No track is selected. Select the track to work on, then press the key again." end
  return spans
end

selection.every_track = every_track
selection.bounds = bounds

return selection
