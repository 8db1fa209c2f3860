-- Questions in REAPER's own dialog, which screen readers know; answers are kept for the next time.
local files = require("punchin.files")
local wire = require("punchin.wire")

local dialog = {}

-- name, caption, default; the order is the dialog's.
local WORDS = { { "prompt", "Prompt", "" } }
local COMMON = {
  { "lyrics", "Lyrics (/ begins a new line, @FILE)", "" },
  { "key", "Key (empty: not told)", "" },
  { "preset", "Preset (empty: none)", "" },
  { "variations", "Number of takes (empty: 1)", "" },
  { "seed", "Seed (empty: a new one)", "" },
  { "context", "Bars heard around (auto, whole, 4)", "auto" },
  { "model", "Model (empty: the best installed)", "" },
}
local LAND = {
  { "land", "Land as (take, split, lane, track)", "take" },
  { "post_fx", "Hear track FX (yes: on a new track)", "" },
}
local STRENGTH = { { "strength", "Strength 0 to 1 (empty: all new)", "" } }
local INSTRUMENT = { { "instrument", "Instrument", "bass" } }

local FIELDS = {
  repaint = { WORDS, COMMON, STRENGTH, LAND },
  cover = { WORDS, COMMON, STRENGTH, LAND },
  layer = { WORDS, INSTRUMENT, COMMON },
  extract = { INSTRUMENT, COMMON },
}
local MOST_BYTES = 1023 -- of all answers together: REAPER cuts what is longer
local LANDS = { take = true, split = true, lane = true, track = true }

local function fields_of(task)
  local fields = {}
  for _, group in ipairs(FIELDS[task]) do
    for _, field in ipairs(group) do fields[#fields + 1] = field end
  end
  return fields
end

-- What was last asked for with this task, as text; nil the first time.
function dialog.last(task)
  local text = reaper.GetExtState("PUNCHIN", "last_" .. task)
  if text == "" then return nil end
  return wire.unpack(text)
end

function dialog.keep(task, answers)
  reaper.SetExtState("PUNCHIN", "last_" .. task, wire.pack(answers), true)
end

-- The user's answers as text; or nil when the dialog was cancelled, and a sentence when they are too long for it.
function dialog.ask(task, title)
  local fields, last = fields_of(task), dialog.last(task) or {}
  local captions, values = {}, {}
  for i, field in ipairs(fields) do
    captions[i] = field[2]:gsub(",", ";") .. ":"
    values[i] = ((last[field[1]] or field[3]):gsub("\n", " "))
  end
  captions[#captions + 1] = "extrawidth=300"
  captions[#captions + 1] = "separator=\n"
  local ok, text = reaper.GetUserInputs(
    title, #fields, table.concat(captions, ","), table.concat(values, "\n"))
  if not ok then return nil end
  if #text >= MOST_BYTES then
    return nil, string.format("The answers are over %d bytes, more than REAPER's dialog can hold. "
      .. "Shorten the prompt, or give the lyrics as @ and the path of a text file.", MOST_BYTES - 1)
  end
  local answers, i = {}, 0
  for value in (text .. "\n"):gmatch("([^\n]*)\n") do
    i = i + 1
    if fields[i] then answers[fields[i][1]] = value end
  end
  dialog.keep(task, answers)
  return answers
end

local function whole(text, low, high)
  local number = tonumber(text)
  if not number or number ~= math.floor(number) or number < low or number > high then return nil end
  return math.floor(number)
end

local function new_seed()
  return tonumber(reaper.genGuid(""):sub(2, 9), 16) -- 32 random bits
end

-- Each gives the value of an answer, false where the preset or the default decides, or nil and what is allowed.
local CHECKS = {}

function CHECKS.strength(text)
  if text == "" then return false end
  local number = tonumber((text:gsub(",", ".")))
  if not number or number < 0 or number > 1 then return nil, "0 to 1" end
  return number + 0.0
end

function CHECKS.variations(text, settings)
  local most = tonumber(settings.variations_max)
  if text == "" then return false end
  return whole(text, 1, most), "1 to " .. most
end

function CHECKS.seed(text)
  if text == "" then return new_seed() end
  return whole(text, 0, 2 ^ 32 - 1), "0 to 4294967295"
end

function CHECKS.context(text)
  if text == "" then return "auto" end
  if text == "auto" or text == "whole" then return text end
  local bars = whole(text, 0, 1000) -- without the spaces that it may stand between
  return bars and tostring(bars), "auto, whole or a number of bars"
end

function CHECKS.land(text)
  if text == "" then return "take" end
  return LANDS[text] and text or nil, "take, split, lane or track"
end

function CHECKS.lyrics(text, settings)
  if text:sub(1, 1) ~= "@" then return (text:gsub("%s*/%s*", "\n")) end
  local home, most = os.getenv("HOME") or os.getenv("USERPROFILE") or "~", tonumber(settings.lyrics_max)
  local words = files.read((text:sub(2):gsub("^~", home)))
  words = words and words:gsub("\r\n?", "\n")
  if words and (utf8.len(words) or most + 1) <= most then return words end
  return nil, string.format("@ and the path of a text file (UTF-8, at most %d characters)", most)
end

function CHECKS.post_fx(text)
  if text == "" or text == "no" then return false end
  return text == "yes" or nil, "yes or no"
end

local function as_text(text)
  return text
end

local NAMES = {
  "prompt", "lyrics", "key", "strength", "variations", "seed", "context", "model", "preset", "instrument", "land",
  "post_fx",
}

-- Answers as a request's values and how it is done (land, post_fx); or nil and a sentence with what is allowed.
function dialog.params(answers, settings)
  local params = {}
  for _, name in ipairs(NAMES) do
    local text = answers[name] or ""
    local value, allowed = (CHECKS[name] or as_text)(text, settings)
    if value == nil then return nil, string.format('%s is "%s", allowed is %s.', name, text, allowed) end
    params[name] = value or nil
  end
  local how = { land = params.land, post_fx = params.post_fx }
  params.land, params.post_fx = nil, nil
  if how.post_fx then how.land = "track" end -- the take holds the effects; on its own track they come once
  return params, how
end

return dialog
