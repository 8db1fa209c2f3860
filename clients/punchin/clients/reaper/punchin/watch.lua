-- The one script that stays: it reads events, shows progress, lands takes, and ends when nothing is open any more.
-- Idle it costs one file open each third tick and no call of the API but `defer`.
local bridge = require("punchin.bridge")
local config = require("punchin.config")
local drafts = require("punchin.drafts")
local files = require("punchin.files")
local jobs = require("punchin.jobs")
local land = require("punchin.land")
local peaks = require("punchin.peaks")
local show = require("punchin.show")
local wire = require("punchin.wire")

local watch = {}

-- Times are counted in ticks of REAPER's timer, about 30 a second: a clock would be one more call each time.
local LOOK_TICKS = 3
local LIVELY_TICKS = 30 -- for so long after an event each tick looks: the next one is near
local ASKED_EVERY = 5 -- each fifth look is for what was asked, the others are for events
local ANSWER_TICKS = 10 * 30 -- a bridge that has not answered by then gets one more start
local LINGER_TICKS = 60 * 30

local watcher = {
  tick = 0,
  looks = 0,
  open = {}, -- id -> { proj, record, path, track }, from asked to landed, failed or cancelled
  unanswered = {}, -- id -> tick at which it was asked
  waiting = {}, -- done events that cannot land yet; a watcher that begins again reads them again
  last_open_tick = 0,
  lively_until_tick = 0,
}

local function remember(name, value)
  reaper.SetExtState("PUNCHIN", name, tostring(value), false)
end

local function recall(name)
  return tonumber(reaper.GetExtState("PUNCHIN", name)) or 0
end

local function finished(proj, id)
  if proj then jobs.close(proj, id) end
  watcher.open[id], watcher.unanswered[id] = nil, nil
end

-- A job that is open from now on. False when nothing is known of it.
local function take_up(id)
  local proj, record, path = jobs.find(id)
  if not proj then return false end -- cancelled before it left
  local first = wire.decode((record.parts or ""):match("[^\n]+") or "")
  watcher.open[id] = { proj = proj, record = record, path = path, track = first.track }
  return true
end

-- The project tab and the record of an open job. A project's own note of it may go back with an undo of the user's;
-- then what was asked for counts, as long as that project is in its tab.
local function job_of(id)
  local proj, record, path = jobs.find(id)
  local known = watcher.open[id]
  if proj then
    if known then known.path = path end -- it may have got a name since
    return proj, record
  end
  if known and jobs.is_in_a_tab(known.proj, known.path, known.track) then return known.proj, known.record end
  return nil
end

local function asked(line)
  local id = wire.decode(line).job
  if not id or not take_up(id) then return end
  local known = watcher.open[id]
  if not drafts.add(watcher.settings.spool, known.proj, id, known.record) then
    watcher.unanswered[id] = watcher.tick
  end
end

local function try_to_land(proj, record, event)
  local ok, landed, words = xpcall(land.done, debug.traceback, proj, record, event)
  if not ok then landed, words = nil, "REAPER refused the landing: " .. tostring(landed) end
  if landed == false then
    if not event.told_to_wait then show.line(record.title .. " " .. words) end
    event.told_to_wait = true
    return false
  end
  finished(proj, event.job)
  if landed then
    show.news(string.format("%s: %s, %s", record.title, words, event.text or "done"))
  else
    show.news(string.format("%s could not land: %s. The files are kept beside the project.", record.title, words))
  end
  return true
end

local HANDLERS = {}

function HANDLERS.accepted(_, record, event)
  show.line(record.title .. " " .. (event.text or "accepted"))
end

function HANDLERS.progress(_, record, event)
  show.line(record.title .. " " .. (event.text or ""))
end

function HANDLERS.note(_, record, event)
  show.news(record.title .. ": " .. (event.text or ""))
end

function HANDLERS.done(proj, record, event)
  if try_to_land(proj, record, event) then return end
  table.insert(watcher.waiting, event)
  if #watcher.waiting == 1 then remember("events_offset", watcher.events_before) end
end

function HANDLERS.failed(proj, record, event)
  finished(proj, event.job)
  local hint = event.hint or ""
  show.news(record.title .. ": " .. (event.text or "failed") .. (hint ~= "" and "; " .. hint or ""))
end

function HANDLERS.cancelled(proj, record, event)
  finished(proj, event.job)
  show.news(record.title .. " cancelled; nothing was changed")
end

local function handle(line)
  local event = wire.decode(line)
  if event.kind == "told" then return show.news(event.text or "") end -- an answer that belongs to no job
  if not (event.job and HANDLERS[event.kind]) then return end -- torn, garbage, or of a newer bridge
  watcher.unanswered[event.job] = nil
  local proj, record = job_of(event.job)
  if not proj then -- landed already, or its project is closed and keeps the job for later
    watcher.open[event.job] = nil
    return
  end
  HANDLERS[event.kind](proj, record, event)
end

-- Complete new lines of one of this REAPER's two streams.
local function news_in(stream)
  local before = watcher[stream .. "_offset"]
  local lines, offset = files.lines_after(watcher[stream], before)
  watcher[stream .. "_before"], watcher[stream .. "_offset"] = before, offset
  if offset ~= before then
    if stream == "asked" or #watcher.waiting == 0 then remember(stream .. "_offset", offset) end
    watcher.lively_until_tick = watcher.tick + LIVELY_TICKS
  end
  return lines
end

local function read_asked()
  for _, line in ipairs(news_in("asked")) do asked(line) end
end

local function read_events()
  for _, line in ipairs(news_in("events")) do handle(line) end
end

-- Idle, a look opens one file; while an event is near it opens both, so that none waits for a later tick.
local function look(lively)
  watcher.looks = watcher.looks + 1
  if watcher.looks % ASKED_EVERY == 0 then
    read_asked()
    if not lively then return end
  end
  read_events()
end

local function land_waiting()
  local still = {}
  for _, event in ipairs(watcher.waiting) do
    local proj, record = job_of(event.job)
    if not proj then
      watcher.open[event.job] = nil -- closed meanwhile: its project keeps the job for later
    elseif not try_to_land(proj, record, event) then
      still[#still + 1] = event
    end
  end
  watcher.waiting = still
  if #still == 0 then remember("events_offset", watcher.events_offset) end
end

local function step_draft()
  local work, ending, why = drafts.step()
  if ending == "sent" then
    watcher.unanswered[work.id] = watcher.tick
  elseif ending == "cancelled" or ending == "closed" then
    finished(nil, work.id)
  elseif ending == "failed" then
    HANDLERS.failed(work.proj, work.record, { job = work.id, text = why })
  end
end

-- What the bridge said last before it ended, if it could not even start.
local function last_words()
  local text = files.read(watcher.settings.spool .. "/bridge.stderr") or ""
  return text:match("([^\r\n]+)%s*$") or "It left no message."
end

local function chase_unanswered()
  for id, asked_tick in pairs(watcher.unanswered) do
    if watcher.tick - asked_tick >= ANSWER_TICKS then
      watcher.unanswered[id] = nil
      local words = last_words()
      bridge.ensure(watcher.settings)
      show.news("the bridge has not answered and is started again. " .. words .. " If nothing comes: punchin doctor")
    end
  end
end

local function step()
  watcher.tick = watcher.tick + 1
  if drafts.waiting() then step_draft() end
  if peaks.waiting() then peaks.step() end
  local lively = watcher.tick < watcher.lively_until_tick
  if lively or watcher.tick % LOOK_TICKS == 0 then
    look(lively)
    if #watcher.waiting > 0 then land_waiting() end
    if next(watcher.unanswered) then chase_unanswered() end
  end
  if next(watcher.open) or #watcher.waiting > 0 then watcher.last_open_tick = watcher.tick end
  if watcher.tick - watcher.last_open_tick < LINGER_TICKS then return true end
  read_asked() -- a key pressed since the last look found this watcher on
  read_events()
  return next(watcher.open) ~= nil
end

local function stopped()
  drafts.stop()
  reaper.DeleteExtState("PUNCHIN", "watcher", false)
  if watcher.command and watcher.command > 0 then
    reaper.SetToggleCommandState(watcher.section, watcher.command, 0)
    reaper.RefreshToolbar2(watcher.section, watcher.command)
  end
end

local function loop()
  local ok, go_on = xpcall(step, debug.traceback)
  if not ok then
    show.news("the watcher stopped: " .. tostring(go_on))
    return
  end
  if go_on then reaper.defer(loop) end
end

-- Jobs that this project remembers although their events went to an earlier run of REAPER: asked for again.
-- everything: those of this run as well, whose end came while their project was closed.
function watch.collect(proj, settings, everything)
  local ids, instance = {}, bridge.instance()
  for id, record in pairs(jobs.of(proj)) do
    if everything or record.instance ~= instance then
      record.instance = instance
      jobs.open(proj, id, record)
      bridge.tell_watcher(settings, wire.encode({ kind = "asked", job = id }))
      if drafts.holds(settings.spool, id) then
        bridge.adopt(settings, id) -- it goes on by itself
      else
        ids[#ids + 1] = id
      end
    end
  end
  if #ids == 0 then return 0 end
  table.sort(ids)
  local id = jobs.new_id()
  local written, why = bridge.ask(settings, id, { action = "collect", jobs = require("punchin.json").array(ids) })
  if not written then return nil, tostring(why) end
  return #ids
end

function watch.run()
  local settings, why = config.load()
  if not settings then return show.news(why) end
  watcher.settings = settings
  watcher.events = settings.spool .. "/out/" .. bridge.instance() .. ".events"
  watcher.asked = settings.spool .. "/asked/" .. bridge.instance() .. ".tsv"
  watcher.events_offset, watcher.asked_offset = recall("events_offset"), recall("asked_offset")
  local _, _, section, command = reaper.get_action_context()
  watcher.section, watcher.command = section, command
  if reaper.APIExists("set_action_options") then reaper.set_action_options(3) end -- a second start replaces this one
  reaper.SetExtState("PUNCHIN", "watcher", "on", false)
  reaper.atexit(stopped)
  if command > 0 then
    reaper.SetToggleCommandState(section, command, 1)
    reaper.RefreshToolbar2(section, command)
  end
  local index = 0
  while true do -- jobs that a stopped watcher left behind
    local proj = reaper.EnumProjects(index)
    if not proj then break end
    for id, record in pairs(jobs.of(proj)) do
      if record.instance == bridge.instance() and take_up(id) then
        drafts.add(settings.spool, proj, id, record)
      end
    end
    index = index + 1
  end
  loop()
end

return watch
