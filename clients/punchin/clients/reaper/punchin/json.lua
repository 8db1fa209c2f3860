-- JSON text of a Lua value. There is no decoder on purpose: what comes back from outside is never evaluated.
local json = {}

local ARRAY = {}

-- Marks a table as a list, so that an empty one is [] and not {}.
function json.array(list)
  return setmetatable(list or {}, ARRAY)
end

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function quoted(text)
  return '"' .. text:gsub('[%c"\\\127]', function(char)
    return ESCAPES[char] or string.format("\\u%04x", char:byte())
  end) .. '"'
end

local function number(value)
  if value ~= value or value == math.huge or value == -math.huge then
    error("a request may not hold " .. tostring(value))
  end
  if math.type(value) == "integer" then return tostring(value) end
  return (string.format("%.17g", value):gsub(",", ".")) -- some locales print a comma
end

local encode

local function members(object)
  local names = {}
  for name in pairs(object) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do names[i] = quoted(name) .. ":" .. encode(object[name]) end
  return "{" .. table.concat(names, ",") .. "}"
end

local function elements(list)
  local parts = {}
  for i = 1, #list do parts[i] = encode(list[i]) end
  return "[" .. table.concat(parts, ",") .. "]"
end

function encode(value)
  local kind = type(value)
  if kind == "string" then return quoted(value) end
  if kind == "number" then return number(value) end
  if kind == "boolean" then return tostring(value) end
  if kind == "table" then
    if getmetatable(value) == ARRAY then return elements(value) end
    return members(value)
  end
  error("a request may not hold a " .. kind)
end

json.encode = encode

return json
