-- Open jobs, kept inside the project itself, so that they outlive REAPER.
local follow = require("punchin.follow")
local wire = require("punchin.wire")

local jobs = {}

local SECTION = "PUNCHIN_JOBS" -- upper case, like the ids: whatever REAPER does to case in keys, it stays the same

function jobs.open(proj, id, record)
  reaper.SetProjExtState(proj, SECTION, id, wire.pack(record))
end

function jobs.close(proj, id)
  reaper.SetProjExtState(proj, SECTION, id, "") -- an empty value deletes the key
end

local function record_of(id, text)
  local record = wire.unpack(text)
  record.title = record.title or id -- a damaged note must not stop what follows other jobs
  return record
end

-- id -> record of one project's open jobs.
function jobs.of(proj)
  local found, index = {}, 0
  while true do
    local more, id = reaper.EnumProjExtState(proj, SECTION, index) -- its value would be cut after 1023 bytes
    if not more then return found end
    local _, text = reaper.GetProjExtState(proj, SECTION, id)
    found[id] = record_of(id, text)
    index = index + 1
  end
end

-- The open project tab that asked for a job, with its record and the tab's path; nil when that project is closed.
function jobs.find(id)
  local index = 0
  while true do
    local proj, path = reaper.EnumProjects(index)
    if not proj then return nil end
    local known, text = reaper.GetProjExtState(proj, SECTION, id)
    if known ~= 0 and text ~= "" then return proj, record_of(id, text), path end
    index = index + 1
  end
end

-- Whether a project is still in a tab. Another one may have taken the place of one that was closed: what tells them
-- apart is the path or, where it had none and may have got one since, the track that a job was asked for.
function jobs.is_in_a_tab(proj, path, track)
  local index = 0
  while true do
    local tab, name = reaper.EnumProjects(index)
    if not tab then return false end
    if tab == proj then return name == path or path == "" and follow.track(proj, track) ~= nil end
    index = index + 1
  end
end

function jobs.new_id()
  return os.date("!%Y%m%d-%H%M%S-") .. reaper.genGuid(""):gsub("%W", ""):sub(1, 8):upper()
end

return jobs
