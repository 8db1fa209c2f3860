-- One function an action. Each reads, refuses or acts, says one line, and ends.
local bridge = require("punchin.bridge")
local config = require("punchin.config")
local dialog = require("punchin.dialog")
local files = require("punchin.files")
local jobs = require("punchin.jobs")
local selection = require("punchin.selection")
local show = require("punchin.show")
local submit = require("punchin.submit")
local takes = require("punchin.takes")
local watch = require("punchin.watch")

local actions = {}

local function active_project()
  return (reaper.EnumProjects(-1))
end

-- Runs an action with the settings; a refusal (nil, sentence) is shown, anything else was said by the action.
local function act(body)
  reaper.defer(function() end) -- without it REAPER adds an undo point for a script that changed nothing
  if reaper.APIExists("set_action_options") then reaper.set_action_options(3) end -- pressed again: the new run counts
  local settings, why = config.load()
  if not settings then return show.refusal(why) end
  local proj = active_project()
  local result
  result, why = body(proj, settings)
  if result == nil and why then show.refusal(why) end
end

local function send(proj, settings, spans, task, answers)
  local params, how = dialog.params(answers, settings)
  if not params then return nil, how end
  if task == "layer" or task == "extract" then how.land = "track" end
  local collected, why = watch.collect(proj, settings) -- what an earlier run of REAPER left open comes along
  if not collected then return nil, why end
  return submit.send(proj, settings, spans, { task = task, land = how.land, post_fx = how.post_fx, params = params })
end

local function ask_and_send(task, title)
  act(function(proj, settings)
    local spans, why = selection.spans(proj) -- before the dialog: no words are asked for in vain
    if not spans then return nil, why end
    local answers, problem = dialog.ask(task, title)
    if not answers then return nil, problem end
    return send(proj, settings, spans, task, answers)
  end)
end

function actions.repaint_ask() ask_and_send("repaint", "Punchin: repaint selection") end
function actions.cover_ask() ask_and_send("cover", "Punchin: cover selection") end
function actions.layer_ask() ask_and_send("layer", "Punchin: layer on new track") end
function actions.extract_ask() ask_and_send("extract", "Punchin: extract to new track") end

-- The key for the hand that stays on the instrument: the last words again, with a new seed.
function actions.repaint_last()
  local answers = dialog.last("repaint")
  if not answers then return actions.repaint_ask() end
  act(function(proj, settings)
    local spans, why = selection.spans(proj)
    if not spans then return nil, why end
    answers.seed = ""
    return send(proj, settings, spans, "repaint", answers)
  end)
end

local function vary(count)
  act(function(proj, settings)
    local asked, why = takes.variations(proj)
    if not asked then return nil, why end
    for _, each in ipairs(asked) do
      local answers = each.order.params
      local lyrics = answers.lyrics -- checked before: a / in them is the song's own by now
      answers.seed, answers.variations, answers.lyrics = "", tostring(count), ""
      local params, problem = dialog.params(answers, settings)
      if not params then return nil, problem end
      params.lyrics, each.order.params = lyrics, params
      local sent
      sent, why = submit.send(proj, settings, each.spans, each.order)
      if not sent then return nil, why end
    end
    return #asked
  end)
end

function actions.new_variation() vary(1) end

function actions.more_variations()
  local ok, text = reaper.GetUserInputs("Punchin: more variations", 1, "Number of takes:", "4")
  if ok then vary(text) end
end

function actions.next_take()
  act(function(proj)
    local name, why = takes.next(proj)
    if name then show.news(name) end
    return name, why
  end)
end

function actions.keep_take()
  act(function(proj)
    local count, why = takes.keep(proj)
    if count then show.news(string.format("%d take(s) kept", count)) end
    return count, why
  end)
end

function actions.discard_others()
  act(function(proj)
    local count, rest = takes.discard_others(proj)
    if not count then return nil, rest end
    local kept = rest > 0 and string.format("; %d item(s) are locked and keep theirs", rest) or ""
    show.news(string.format("%d take(s) discarded%s", count, kept))
    return count
  end)
end

-- Cancels every open job of this project. A draft that still waits for its audio never left: it just goes.
function actions.cancel()
  act(function(proj, settings)
    local collected, problem = watch.collect(proj, settings) -- what an earlier run of REAPER left open answers this one
    if not collected then return nil, problem end
    local count = 0
    for id in pairs(jobs.of(proj)) do
      count = count + 1
      if os.remove(settings.spool .. "/draft/" .. id .. ".json") then
        jobs.close(proj, id)
      else
        files.append(settings.spool .. "/cancel/" .. id, "")
      end
    end
    if count == 0 then return nil, "Nothing of this project is under way." end
    show.news(string.format("cancelling %d job(s)", count))
    local started, why = bridge.ensure(settings)
    if not started then return nil, why end
    return bridge.ensure_watcher()
  end)
end

local function ask_bridge(action)
  act(function(_, settings)
    local written, why = bridge.ask(settings, jobs.new_id(), { action = action })
    if not written then return nil, "The request cannot be written: " .. tostring(why) end
    local started
    started, why = bridge.ensure(settings)
    if not started then return nil, why end
    return bridge.ensure_watcher()
  end)
end

function actions.free_gpu() ask_bridge("free") end

function actions.collect()
  act(function(proj, settings)
    local count, why = watch.collect(proj, settings, true)
    if not count then return nil, why end
    show.news(count == 0 and "nothing is left to collect" or string.format("collecting %d job(s)", count))
    local started
    started, why = bridge.ensure(settings)
    if not started then return nil, why end
    return bridge.ensure_watcher()
  end)
end

function actions.status()
  act(function(proj, settings)
    local lines = {}
    for id, record in pairs(jobs.of(proj)) do lines[#lines + 1] = "  " .. record.title .. " (" .. id .. ")" end
    table.sort(lines)
    table.insert(lines, 1, #lines == 0 and "No job of this project is open." or "Open jobs of this project:")
    lines[#lines + 1] = bridge.alive(settings) and "The bridge runs." or "The bridge sleeps; the next job starts it."
    local state = files.read(settings.spool .. "/status.txt")
    if state then lines[#lines + 1] = state end
    show.dialog(table.concat(lines, "\n"))
    return #lines
  end)
end

return actions
