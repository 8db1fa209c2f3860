-- A key press becomes requests in the spool: read everything, refuse first, write, end. Nothing here waits.
local bridge = require("punchin.bridge")
local describe = require("punchin.describe")
local jobs = require("punchin.jobs")
local json = require("punchin.json")
local render = require("punchin.render")
local selection = require("punchin.selection")
local show = require("punchin.show")
local tempo = require("punchin.tempo")
local wire = require("punchin.wire")

local submit = {}

local MOST_SPANS = 16 -- more at one key press is a slip of the mouse
local LEAST_REACH_S = 30 -- `--context auto` hears at most this far, or the region's own length
local WHOLE_REACH_S = 600 -- no window is longer

local function reach_s(region, context)
  if context ~= "auto" then return WHOLE_REACH_S end
  return math.max(LEAST_REACH_S, region.end_s - region.start_s)
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

local function heard_tracks(proj, span, task)
  if task ~= "layer" then return { span.track } end
  local tracks = {}
  for _, track in ipairs(selection.every_track(proj)) do
    if reaper.GetMediaTrackInfo_Value(track, "B_MUTE") == 0 then tracks[#tracks + 1] = track end
  end
  return tracks
end

local AS_IT_IS = { instead = {}, unmuted = {}, without = {} }

local function append(list, more)
  for _, each in ipairs(more) do list[#list + 1] = each end
end

-- Every heard track with its items, and what `describe.items` found besides; or nil and a sentence.
local function describe_tracks(proj, span, window, order)
  local tracks, all = json.array(), { captures = {}, notes = {}, anchors = {} }
  local target = reaper.GetTrackGUID(span.track)
  for _, track in ipairs(heard_tracks(proj, span, order.task)) do
    local found, why = describe.items(track, window, span, order.as_if or AS_IT_IS)
    if not found then return nil, why end
    local guid = reaper.GetTrackGUID(track)
    append(all.captures, found.captures)
    append(all.notes, found.notes)
    if guid == target then append(all.anchors, found.anchors) end
    tracks[#tracks + 1] = {
      guid = guid,
      name = track_name(track),
      volume = reaper.GetMediaTrackInfo_Value(track, "D_VOL"),
      pan = reaper.GetMediaTrackInfo_Value(track, "D_PAN"),
      items = found.items,
    }
  end
  return tracks, all
end

-- The track through its effects, as one rendered item. REAPER is busy meanwhile: the user asked for it.
local function render_track(proj, settings, span, window, order, id)
  local end_s = math.max(math.min(window.end_s, reaper.GetProjectLength(proj)), span.end_s)
  local path, why = render.track(
    proj, span.track, window.start_s, end_s, project_rate_hz(proj), settings.spool .. "/audio", id .. "-1")
  if not path then return nil, why end
  local item = describe.rendered(path, window.start_s, end_s - window.start_s)
  local track = {
    guid = reaper.GetTrackGUID(span.track), name = track_name(span.track), volume = 1.0, pan = 0.0,
    items = json.array({ item }),
  }
  local anchors = describe.anchors(span.track, span, order.as_if or AS_IT_IS)
  return json.array({ track }), { captures = {}, notes = {}, anchors = anchors }
end

local function lines_of(list)
  local lines = {}
  for i, fields in ipairs(list) do lines[i] = wire.encode(fields) end
  return table.concat(lines, "\n")
end

local function capture_lines(settings, id, captures)
  local takes = {}
  for i, capture in ipairs(captures) do
    local path = string.format("%s/audio/%s-%d.wav", settings.spool, id, i)
    capture.values.source = { path = path, offset_s = 0.0 }
    capture.values.take.channel_mode = 0.0 -- the accessor hands out channels as they are heard
    takes[i] = {
      take = capture.values.take.guid,
      path = path,
      channels = capture.channels,
      length_s = capture.values.length_s,
    }
  end
  return lines_of(takes)
end

local function title_of(proj, span, order)
  local first = tempo.bar_at(proj, span.start_s)
  local last = tempo.bar_at(proj, span.end_s - 1e-4)
  local bars = first == last and "bar " .. first or string.format("bars %d-%d", first, last)
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

-- One span's request and the record that the landing needs, or nil and a sentence.
local function request_for(proj, settings, span, order)
  local region = { start_s = span.start_s, end_s = span.end_s }
  local reach = reach_s(span, order.params.context)
  local window = { start_s = math.max(span.start_s - reach, 0), end_s = span.end_s + reach }
  local id = jobs.new_id()
  local tracks, found
  if order.post_fx then
    tracks, found = render_track(proj, settings, span, window, order, id)
  else
    tracks, found = describe_tracks(proj, span, window, order)
  end
  if not tracks then return nil, found end
  local record = {
    task = order.task,
    land = order.land,
    title = title_of(proj, span, order),
    track = reaper.GetTrackGUID(span.track),
    start_s = region.start_s + 0.0,
    end_s = region.end_s + 0.0,
    anchors = lines_of(found.anchors),
    onto = order.onto or "",
    post_fx = order.post_fx and "yes" or "",
    instance = bridge.instance(),
    captures = capture_lines(settings, id, found.captures),
    rate_hz = project_rate_hz(proj),
    params = wire.pack(order.params),
    notes = table.concat(found.notes, " "),
  }
  return {
    id = id,
    record = record,
    request = {
      action = order.task,
      land = order.land,
      project = project_values(proj),
      region = region,
      tempo = tempo.grid(proj, window.end_s),
      tracks = tracks,
      target = record.track,
      params = order.params,
    },
  }
end

local function check_lanes(order)
  local version = tonumber(reaper.GetAppVersion():match("^(%d+)"))
  if order.land == "lane" and version and version < 7 then
    return nil, "Fixed lanes need REAPER 7, this is " .. reaper.GetAppVersion() .. ". Land as take, split or track."
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

-- Writes all requests of one key press, then starts bridge and watcher if they sleep.
-- order: task, land, params (text and numbers), post_fx (hear the track's effects; lands on a new track), and for a
-- variation: as_if (see describe), onto (an item's GUID).
-- Returns the number of requests, or nil and a sentence; then nothing was asked.
function submit.send(proj, settings, spans, order)
  if #spans > MOST_SPANS then
    return nil, string.format("The selection has %d areas, allowed are %d. Select fewer.", #spans, MOST_SPANS)
  end
  local can, cannot = check_lanes(order)
  if not can then return nil, cannot end
  local ready = {}
  for i, span in ipairs(spans) do -- all are read before the first is written
    local fits, why = check_length(settings, span)
    if not fits then return nil, why end
    ready[i], why = request_for(proj, settings, span, order)
    if not ready[i] then return nil, why end
  end
  for _, each in ipairs(ready) do
    jobs.open(proj, each.id, each.record)
    local write = each.record.captures == "" and bridge.ask or bridge.draft
    local written, why = write(settings, each.id, each.request)
    if not written then
      jobs.close(proj, each.id)
      return nil, "The request cannot be written: " .. tostring(why)
    end
    bridge.tell_watcher(settings, wire.encode({ kind = "asked", job = each.id }))
    show.line("asked for " .. each.record.title .. " " .. each.record.notes)
  end
  local started, why = bridge.ensure(settings)
  if not started then return nil, why end
  started, why = bridge.ensure_watcher()
  if not started then return nil, why end
  return #ready
end

return submit
