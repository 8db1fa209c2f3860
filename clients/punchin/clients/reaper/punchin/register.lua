-- Adds the actions to REAPER's list, or takes them out again. REAPER itself writes its key map, nobody else does.
local catalogue = require("punchin.catalogue")
local config = require("punchin.config")

local register = {}

local MAIN_SECTION = 0
local YES_NO, YES = 4, 6

local function path_of(action)
  return config.folder .. "Punchin - " .. action .. ".lua"
end

local function has_shortcuts()
  return reaper.APIExists("DoActionShortcutDialog") and reaper.APIExists("SectionFromUniqueID")
end

-- Adds or removes all; the last call lets REAPER save its list. Returns action -> command.
local function all(add)
  local commands = {}
  for i, action in ipairs(catalogue.actions) do
    local command = reaper.AddRemoveReaScript(add, MAIN_SECTION, path_of(action), i == #catalogue.actions)
    if command == 0 and add then return nil, "REAPER cannot load " .. path_of(action) end
    commands[action] = command
  end
  return commands
end

local function ask_for_keys(commands)
  local section = reaper.SectionFromUniqueID(MAIN_SECTION)
  for _, action in ipairs(catalogue.keys) do
    if not reaper.DoActionShortcutDialog(reaper.GetMainHwnd(), section, commands[action], -1) then return end
  end
end

function register.add()
  local settings, why = config.load()
  if not settings then return reaper.MB(why, "Punchin", 0) end
  local commands
  commands, why = all(true)
  if not commands then return reaper.MB(why, "Punchin", 0) end
  local name = reaper.ReverseNamedCommandLookup(commands.watcher)
  if name then reaper.SetExtState("PUNCHIN", "watcher_command", "_" .. name, true) end
  local text = #catalogue.actions .. ' actions are in the action list now; search it for "Punchin".'
  if not has_shortcuts() then
    return reaper.MB(text .. "\nGive them keys there: select one, then Add.", "Punchin", 0)
  end
  if reaper.MB(text .. "\n\nChoose keys for the four main ones now?", "Punchin", YES_NO) == YES then
    ask_for_keys(commands)
  end
end

local function delete_shortcuts()
  local section = reaper.SectionFromUniqueID(MAIN_SECTION)
  for _, action in ipairs(catalogue.actions) do
    local command = reaper.AddRemoveReaScript(true, MAIN_SECTION, path_of(action), false) -- the command it has already
    for index = reaper.CountActionShortcuts(section, command) - 1, 0, -1 do
      reaper.DeleteActionShortcut(section, command, index)
    end
  end
end

function register.remove()
  if has_shortcuts() and reaper.APIExists("DeleteActionShortcut") then delete_shortcuts() end
  all(false)
  reaper.DeleteExtState("PUNCHIN", "watcher_command", true)
  reaper.MB("Punchin's actions are out of the action list. To remove the files: punchin uninstall reaper", "Punchin", 0)
end

return register
