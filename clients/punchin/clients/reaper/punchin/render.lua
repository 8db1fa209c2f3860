-- A track as it sounds, effects included: REAPER renders it while the user waits. Only when asked for.
local render = {}

local RENDER_AND_CLOSE = 42230 -- File: Render project, using the most recent render settings, auto-close render dialog
local STEMS_OF_SELECTED_TRACKS, CUSTOM_BOUNDS = 2, 0
local FLOAT_WAV = "ZXZhdyAAAQ==" -- base64 of "evaw", 32 bits float

local function numbers(start_s, end_s, rate_hz)
  return {
    RENDER_SETTINGS = STEMS_OF_SELECTED_TRACKS, RENDER_BOUNDSFLAG = CUSTOM_BOUNDS, RENDER_STARTPOS = start_s,
    RENDER_ENDPOS = end_s, RENDER_CHANNELS = 2, RENDER_SRATE = rate_hz, RENDER_TAILFLAG = 0, RENDER_ADDTOPROJ = 0,
    RENDER_DITHER = 0, RENDER_NORMALIZE = 0,
  }
end

-- RENDER_FILE is a folder, RENDER_PATTERN a name without its ending.
local function strings(folder, name)
  return { RENDER_FILE = folder, RENDER_PATTERN = name, RENDER_FORMAT = FLOAT_WAV, RENDER_FORMAT2 = "" }
end

-- Sets the project's render settings and returns those that were there.
local function exchange(proj, new_numbers, new_strings)
  local old_numbers, old_strings = {}, {}
  for name, value in pairs(new_numbers) do
    old_numbers[name] = reaper.GetSetProjectInfo(proj, name, 0, false)
    reaper.GetSetProjectInfo(proj, name, value, true)
  end
  for name, value in pairs(new_strings) do
    local _, old = reaper.GetSetProjectInfo_String(proj, name, "", false)
    old_strings[name] = old
    reaper.GetSetProjectInfo_String(proj, name, value, true)
  end
  return old_numbers, old_strings
end

-- Selects the tracks of a set of GUIDs and no others; returns the set that was selected.
local function select_only(proj, chosen)
  local before = {}
  for i = 0, reaper.CountTracks(proj) - 1 do
    local track = reaper.GetTrack(proj, i)
    local guid = reaper.GetTrackGUID(track)
    before[guid] = reaper.IsTrackSelected(track)
    reaper.SetTrackSelected(track, chosen[guid] or false)
  end
  return before
end

-- The file with what `track` plays from `start_s` to `end_s`, or nil and a sentence. Settings and selection come back.
function render.track(proj, track, start_s, end_s, rate_hz, folder, name)
  reaper.PreventUIRefresh(1)
  local selected = select_only(proj, { [reaper.GetTrackGUID(track)] = true })
  local old_numbers, old_strings = exchange(proj, numbers(start_s, end_s, rate_hz), strings(folder, name))
  local ok, target = pcall(function()
    local _, files = reaper.GetSetProjectInfo_String(proj, "RENDER_TARGETS", "", false)
    reaper.Main_OnCommandEx(RENDER_AND_CLOSE, 0, proj)
    return files:match("^[^;]+")
  end)
  exchange(proj, old_numbers, old_strings)
  select_only(proj, selected)
  reaper.PreventUIRefresh(-1)
  if not ok then return nil, "REAPER could not render the track: " .. tostring(target) end
  if not (target and reaper.file_exists(target)) then return nil, "The rendering of the track was stopped." end
  return target
end

return render
