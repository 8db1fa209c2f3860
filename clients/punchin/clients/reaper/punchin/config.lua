-- What `punchin install reaper` wrote: where the spool is, how the bridge starts, and the limits.
local files = require("punchin.files")
local wire = require("punchin.wire")

local config = {}

local HERE = debug.getinfo(1, "S").source:match("^@(.*[/\\])punchin[/\\][^/\\]*$")

config.folder = HERE

-- The command that sets this REAPER up, a portable one too.
config.install = 'punchin install reaper --resource-path "' .. reaper.GetResourcePath() .. '"'

-- The settings, or nil and a sentence.
function config.load()
  local text = files.read(HERE .. "bridge.cfg") -- not there for scripts that ReaPack put into a folder of its own
    or files.read(reaper.GetResourcePath() .. "/Scripts/Punchin/bridge.cfg")
  if not text then return nil, "Punchin is not set up for this REAPER. Run: " .. config.install end
  local settings = wire.decode((text:gsub("\r?\n", "\t")))
  settings.arguments = {}
  while settings["argument" .. #settings.arguments + 1] do
    settings.arguments[#settings.arguments + 1] = settings["argument" .. #settings.arguments + 1]
  end
  if not settings.spool or #settings.arguments == 0 then
    return nil, "bridge.cfg is damaged. Run: " .. config.install
  end
  return settings
end

return config
