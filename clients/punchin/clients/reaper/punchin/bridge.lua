-- The way to the bridge: its heartbeat, its start, and requests in its spool.
local config = require("punchin.config")
local files = require("punchin.files")
local json = require("punchin.json")

local bridge = {}

local STALE_S = 5 -- the bridge writes its beat every 2 s

-- Fixed arguments from the installation; no text of the user's ever stands on a command line.
local function command_line(arguments)
  local words = {}
  for i, argument in ipairs(arguments) do
    if argument:find('["\r\n]') then return nil, "bridge.cfg holds a quote. Run: " .. config.install end
    words[i] = '"' .. argument .. '"'
  end
  return table.concat(words, " ")
end

function bridge.alive(settings)
  local beat = files.read(settings.spool .. "/bridge.beat")
  local at_s = beat and tonumber(beat:match("time=(%d+)"))
  return at_s ~= nil and os.time() - at_s <= STALE_S
end

-- Starts the bridge unless it beats. Returns at once; a second one would find the first one's lock and end.
function bridge.ensure(settings)
  if bridge.alive(settings) then return true end
  local line, why = command_line(settings.arguments)
  if not line then return nil, why end
  reaper.ExecProcess(line, -1) -- -1: does not wait
  return true
end

-- Whatever is open in this REAPER shares one stream of events, named after this run of REAPER.
function bridge.instance()
  local instance = reaper.GetExtState("PUNCHIN", "instance")
  if instance == "" then
    instance = reaper.genGuid(""):gsub("%W", ""):sub(1, 16):upper()
    reaper.SetExtState("PUNCHIN", "instance", instance, false)
  end
  return instance
end

function bridge.ask(settings, id, request)
  request.v, request.id, request.instance = 2, id, bridge.instance()
  return files.write_whole(settings.spool .. "/inbox/" .. id .. ".json", json.encode(request))
end

-- A request that still lacks audio: the watcher writes that and moves the draft into the inbox.
function bridge.draft(settings, id, request)
  request.v, request.id, request.instance = 2, id, bridge.instance()
  return files.write_whole(settings.spool .. "/draft/" .. id .. ".json", json.encode(request))
end

-- A draft that an earlier run of REAPER left: its answers come to this one.
function bridge.adopt(settings, id)
  local path = settings.spool .. "/draft/" .. id .. ".json"
  local text = files.read(path)
  if not text then return end
  local mine = text:gsub('"instance":"%w*"', '"instance":"' .. bridge.instance() .. '"', 1)
  if files.write_whole(path .. ".mine", mine) and os.remove(path) then os.rename(path .. ".mine", path) end
end

-- Tells the watcher what was asked, through a file: a running script cannot be called.
function bridge.tell_watcher(settings, text)
  return files.append(settings.spool .. "/asked/" .. bridge.instance() .. ".tsv", text .. "\n")
end

local function watcher_command()
  local stored = reaper.GetExtState("PUNCHIN", "watcher_command")
  local command = stored ~= "" and reaper.NamedCommandLookup(stored) or 0
  if command ~= 0 then return command end
  command = reaper.AddRemoveReaScript(true, 0, config.folder .. "Punchin - watcher.lua", true)
  local name = command ~= 0 and reaper.ReverseNamedCommandLookup(command)
  if not name then return nil, "REAPER cannot load the watcher script. Run: " .. config.install end
  reaper.SetExtState("PUNCHIN", "watcher_command", "_" .. name, true)
  return command
end

function bridge.ensure_watcher()
  if reaper.GetExtState("PUNCHIN", "watcher") == "on" then return true end
  local command, why = watcher_command()
  if not command then return nil, why end
  reaper.Main_OnCommandEx(command, 0, 0)
  return true
end

return bridge
