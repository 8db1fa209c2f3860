-- A key press becomes a request in the spool: read everything, refuse first, write, end. Nothing here waits.
local bridge = require("punchin.bridge")
local capture = require("punchin.capture")
local describe = require("punchin.describe")
local jobs = require("punchin.jobs")
local json = require("punchin.json")
local lanes = require("punchin.lanes")
local render = require("punchin.render")
local selection = require("punchin.selection")
local show = require("punchin.show")
local tempo = require("punchin.tempo")
local wire = require("punchin.wire")

local submit = {}

local MOST_SPANS = 16 -- more at one key press is a slip of the mouse
local LEAST_REACH_S = 30 -- `--context auto` hears at most this far, or the region's own length
local WHOLE_REACH_S = 600 -- no window is longer

-- What may be heard of a region's surroundings: a bar more than was asked for, as fades and handles want it.
local function window_of(proj, span, context)
  local bars, reach_s = tonumber(context), WHOLE_REACH_S
  local start_s, end_s = span.start_s, span.end_s
  if context == "auto" then reach_s = math.max(LEAST_REACH_S, end_s - start_s) end
  local window = { start_s = math.max(start_s - reach_s, 0), end_s = end_s + reach_s }
  if bars then
    local first, last = tempo.bar_at(proj, start_s), tempo.bar_at(proj, end_s - 1e-4)
    window.start_s = math.max(window.start_s, tempo.bar_start_s(proj, math.max(first - bars - 1, 1)))
    window.end_s = math.min(window.end_s, tempo.bar_start_s(proj, last + bars + 2))
  end
  return window
end

local function project_rate_hz(proj)
  if reaper.GetSetProjectInfo(proj, "PROJECT_SRATE_USE", 0, false) ~= 0 then
    return math.floor(reaper.GetSetProjectInfo(proj, "PROJECT_SRATE", 0, false))
  end
  local known, rate = reaper.GetAudioDeviceInfo("SRATE")
  return known and math.floor(tonumber(rate) or 48000) or 48000
end

local function track_name(track)
  local _, name = reaper.GetTrackName(track) -- "Track 3" where the user gave none
  return name
end

-- -1 where the track's phase is inverted.
local function polarity_of(track)
  return reaper.GetMediaTrackInfo_Value(track, "B_PHASE") ~= 0 and -1 or 1
end

local function muted(track)
  while track do -- a folder silences all that is in it
    if reaper.GetMediaTrackInfo_Value(track, "B_MUTE") ~= 0 then return true end
    track = reaper.GetParentTrack(track)
  end
  return false
end

local function heard_tracks(proj, span, task)
  if task ~= "layer" then return { span.track } end
  local tracks = {}
  for _, track in ipairs(selection.every_track(proj)) do
    if not muted(track) then tracks[#tracks + 1] = track end
  end
  return tracks
end

local AS_IT_IS = { instead = {}, unmuted = {}, without = {} }

local function append(list, more)
  for _, each in ipairs(more) do list[#list + 1] = each end
end

-- The tracks that are heard for any span, in order, each with the windows and the spans that it is heard for.
local function hearings(proj, spans, windows, task)
  local list, by_guid = {}, {}
  for i, span in ipairs(spans) do
    for _, track in ipairs(heard_tracks(proj, span, task)) do
      local guid = reaper.GetTrackGUID(track)
      local hearing = by_guid[guid]
      if not hearing then
        hearing = { track = track, guid = guid, windows = {}, spans = {} }
        list[#list + 1], by_guid[guid] = hearing, hearing
      end
      table.insert(hearing.windows, windows[i])
      table.insert(hearing.spans, span)
    end
  end
  return list
end

-- Every heard track with its items, and what `describe.items` found besides; or nil and a sentence.
local function describe_tracks(list, order)
  local tracks, all = json.array(), { captures = {}, notes = {} }
  for _, hearing in ipairs(list) do
    local track = hearing.track
    local needed = order.task == "layer" and {} or hearing.spans -- a layer hears of all tracks what can be heard
    local found, why = describe.items(track, hearing.windows, needed, order.as_if or AS_IT_IS)
    if not found then return nil, why end
    append(all.captures, found.captures)
    append(all.notes, found.notes)
    tracks[#tracks + 1] = {
      guid = hearing.guid,
      name = track_name(track),
      volume = reaper.GetMediaTrackInfo_Value(track, "D_VOL") * polarity_of(track),
      pan = reaper.GetMediaTrackInfo_Value(track, "D_PAN"),
      items = found.items,
    }
  end
  return tracks, all
end

-- Each track through its effects, as one rendered item from its first window's start to its last one's end.
-- REAPER is busy meanwhile: the user asked for it.
local function render_tracks(proj, settings, list, id)
  local tracks = json.array()
  for i, hearing in ipairs(list) do
    local start_s, end_s, last_s = math.huge, 0, 0
    for j, window in ipairs(hearing.windows) do
      start_s, end_s = math.min(start_s, window.start_s), math.max(end_s, window.end_s)
      last_s = math.max(last_s, hearing.spans[j].end_s)
    end
    end_s = math.max(math.min(end_s, reaper.GetProjectLength(proj)), last_s)
    local path, why = render.track(
      proj, hearing.track, start_s, end_s, project_rate_hz(proj), settings.spool .. "/audio", id .. "-" .. i)
    if not path then return nil, why end
    tracks[i] = {
      guid = hearing.guid, name = track_name(hearing.track), volume = 1.0, pan = 0.0,
      items = json.array({ describe.rendered(path, start_s, end_s - start_s) }),
    }
  end
  return tracks, { captures = {}, notes = {} }
end

local function lines_of(list)
  local lines = {}
  for i, fields in ipairs(list) do lines[i] = wire.encode(fields) end
  return table.concat(lines, "\n")
end

local function capture_lines(settings, id, captures)
  local takes = {}
  for i, each in ipairs(captures) do
    local path = string.format("%s/audio/%s-%d.wav", settings.spool, id, i)
    each.values.source = { path = path, offset_s = 0.0 }
    each.values.take.channel_mode = 0.0 -- the accessor hands out channels as they are heard
    takes[i] = {
      take = each.values.take.guid,
      path = path,
      channels = each.channels,
      length_s = each.values.length_s,
    }
  end
  return lines_of(takes)
end

local function title_of(proj, span, order)
  local before = tempo.first_bar() - 1
  local first = before + tempo.bar_at(proj, span.start_s)
  local last = before + tempo.bar_at(proj, span.end_s - 1e-4)
  local between = first < 0 and " to " or "-"
  local bars = first == last and "bar " .. first or "bars " .. first .. between .. last
  local instrument = (order.task == "layer" or order.task == "extract") and order.params.instrument
  return (instrument or track_name(span.track)) .. " " .. bars
end

local function media_folder(proj)
  local folder = reaper.GetProjectPathEx(proj)
  reaper.RecursiveCreateDirectory(folder, 0)
  return folder
end

local function project_values(proj)
  local index, path = 0, ""
  repeat -- the name of this tab, which need not be the active one
    local other, other_path = reaper.EnumProjects(index)
    if other == proj then path = other_path or "" end
    index = index + 1
  until not other
  return {
    path = path,
    rate_hz = project_rate_hz(proj),
    media_folder = media_folder(proj),
  }
end

-- What the landing needs to know of each span, a line each.
local function part_lines(proj, spans, order)
  local parts = {}
  for i, span in ipairs(spans) do
    parts[i] = {
      title = title_of(proj, span, order),
      track = reaper.GetTrackGUID(span.track),
      start_s = span.start_s + 0.0,
      end_s = span.end_s + 0.0,
      anchors = lines_of(describe.anchors(span.track, span, order.as_if or AS_IT_IS)),
    }
  end
  return lines_of(parts), parts[1].title .. (#parts > 1 and " and " .. #parts - 1 .. " more" or "")
end

local function record_for(proj, settings, id, spans, order, found)
  local parts, title = part_lines(proj, spans, order)
  return {
    task = order.task,
    land = order.land,
    title = title,
    parts = parts,
    onto = order.onto or "",
    onto_take = order.onto_take or "",
    post_fx = order.post_fx and "yes" or "",
    instance = bridge.instance(),
    captures = capture_lines(settings, id, found.captures),
    rate_hz = project_rate_hz(proj),
    params = wire.pack(order.params),
    notes = table.concat(found.notes, " "),
  }
end

-- Whether the audio that REAPER writes out for a request fits into its files; or nil and a sentence.
local function check_captures(captures, rate_hz)
  for _, each in ipairs(captures) do
    local values = each.values
    if not capture.fits(each.channels, values.length_s, rate_hz) then
      return nil, string.format('Item "%s" is %.0f min long and not played as its file is, so all of it would be '
        .. "written out: over 4 GiB at %d Hz. Split it near the region, or glue it.",
        values.take.name, values.length_s / 60, rate_hz)
    end
  end
  return true
end

-- The request of one key press and the record that its landing needs, or nil and a sentence.
local function request_for(proj, settings, spans, order)
  local windows, regions, last_s, id = {}, json.array(), 0, jobs.new_id()
  for i, span in ipairs(spans) do
    windows[i] = window_of(proj, span, order.params.context)
    last_s = math.max(last_s, windows[i].end_s)
  end
  local list = hearings(proj, spans, windows, order.task)
  if #list == 0 then return nil, "All tracks are muted: there is nothing to hear. Unmute one." end
  for i, span in ipairs(spans) do
    local target = order.task == "layer" and list[1].guid or reaper.GetTrackGUID(span.track) -- one that is heard
    regions[i] = { start_s = span.start_s, end_s = span.end_s, target = target }
  end
  local tracks, found
  if order.post_fx then
    tracks, found = render_tracks(proj, settings, list, id)
  else
    tracks, found = describe_tracks(list, order)
  end
  if not tracks then return nil, found end
  local fit, too_long = check_captures(found.captures, project_rate_hz(proj))
  if not fit then return nil, too_long end
  local record = record_for(proj, settings, id, spans, order, found)
  local request = {
    action = order.task,
    land = order.land,
    project = project_values(proj),
    regions = regions,
    tempo = tempo.grid(proj, last_s),
    tracks = tracks,
    params = order.params,
  }
  return id, record, request
end

-- Areas of several lanes may be the same bars of one track. A layer hears all tracks: there the same bars on several of
-- them are one layer, not one each.
local function distinct(spans, task)
  local kept, known = {}, {}
  for _, span in ipairs(spans) do
    local where = task == "layer" and "" or reaper.GetTrackGUID(span.track)
    local key = where .. span.start_s .. " " .. span.end_s
    if not known[key] then kept[#kept + 1] = span end
    known[key] = true
  end
  return kept
end

local function check_lanes(spans, order)
  for _, span in ipairs(order.land == "lane" and spans or {}) do
    local can, why = lanes.can_have(span.track)
    if not can then return nil, why .. ". Land as take, split or track." end
  end
  return true
end

local function check_length(settings, span)
  local low, high = tonumber(settings.region_min_s), tonumber(settings.region_max_s)
  local length_s = span.end_s - span.start_s
  if length_s < low or length_s > high then
    return nil, string.format("The region is %.2f s long, allowed is %g to %g s.", length_s, low, high)
  end
  return true
end

-- Writes the request of one key press, then starts bridge and watcher if they sleep: all spans are one job.
-- order: task, land, params (text and numbers), post_fx (hear the track's effects; lands on a new track), and for a
-- variation: as_if (see describe), onto (an item's GUID), onto_take (the take's that is varied).
-- Returns the number of regions, or nil and a sentence; then nothing was asked.
function submit.send(proj, settings, spans, order)
  spans = distinct(spans, order.task)
  if #spans > MOST_SPANS then
    return nil, string.format("The selection has %d areas, allowed are %d. Select fewer.", #spans, MOST_SPANS)
  end
  local can, cannot = check_lanes(spans, order)
  if not can then return nil, cannot end
  for _, span in ipairs(spans) do
    local fits, why = check_length(settings, span)
    if not fits then return nil, why end
  end
  local id, record, request = request_for(proj, settings, spans, order)
  if not id then return nil, record end
  jobs.open(proj, id, record)
  local write = record.captures == "" and bridge.ask or bridge.draft
  local written, why = write(settings, id, request)
  if not written then
    jobs.close(proj, id)
    return nil, "The request cannot be written: " .. tostring(why)
  end
  bridge.tell_watcher(settings, wire.encode({ kind = "asked", job = id }))
  show.line("asked for " .. record.title)
  if record.notes ~= "" then show.news(record.title .. ": " .. record.notes) end -- a line would be gone at once
  local started
  started, why = bridge.ensure(settings)
  if not started then return nil, why end
  started, why = bridge.ensure_watcher()
  if not started then return nil, why end
  return #spans
end

return submit
