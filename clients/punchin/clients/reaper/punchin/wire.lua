-- One line of key=value pairs, tab-separated, percent-coded: the form of events, job records and settings.
local wire = {}

local function coded(text)
  return (tostring(text):gsub("[%%\t\r\n=]", function(char) return string.format("%%%02X", char:byte()) end))
end

local function plain(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- Numbers keep all their digits and a point, whatever the locale.
function wire.number(value)
  return (string.format("%.17g", value):gsub(",", "."))
end

function wire.encode(fields)
  local names = {}
  for name in pairs(fields) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do
    local value = fields[name]
    if math.type(value) == "float" then value = wire.number(value) end
    names[i] = coded(name) .. "=" .. coded(value)
  end
  return table.concat(names, "\t")
end

-- The pairs of a line; a piece without "=" is skipped, so that garbage yields an empty table and never an error.
function wire.decode(line)
  local fields = {}
  for piece in line:gmatch("[^\t]+") do
    local name, value = piece:match("^([^=]+)=(.*)$")
    if name then fields[plain(name)] = plain(value) end
  end
  return fields
end

-- The same pairs as one word of letters, digits and % - . _ alone: what REAPER's project file and ini keep as it is.
function wire.pack(fields)
  return (wire.encode(fields):gsub("[^%w%.%-_]", function(char) return string.format("%%%02X", char:byte()) end))
end

function wire.unpack(text)
  return wire.decode(plain(text))
end

return wire
