-- Whole files in, complete lines out.
local files = {}

local LONGEST_READ = 256 * 1024 -- bytes of events taken at once; a longer backlog comes in turns
local LONGEST_LINE = 64 * 1024 * 1024 -- many takes in one job make a long one; beyond this it is garbage

function files.read(path)
  local file, why = io.open(path, "rb")
  if not file then return nil, why end
  local text = file:read("a")
  file:close()
  return text
end

-- A reader sees all of the file or none of it. The name must be new: Windows does not rename over a file.
function files.write_whole(path, text)
  local file, why = io.open(path .. ".tmp", "wb")
  if not file then return nil, why end
  local written, write_error = file:write(text)
  local closed, close_error = file:close() -- a full disk may show only here
  if not (written and closed) then return nil, write_error or close_error end
  return os.rename(path .. ".tmp", path)
end

function files.append(path, text)
  local file, why = io.open(path, "ab")
  if not file then return nil, why end
  local written, write_error = file:write(text)
  local closed, close_error = file:close()
  if not (written and closed) then return nil, write_error or close_error end
  return true
end

-- The complete lines after byte `offset`, and the offset behind them. A torn last line waits for its rest; a file that
-- is shorter was begun anew (an uninstall, a month's cleaning) and is read from its start.
function files.lines_after(path, offset)
  local file = io.open(path, "rb")
  if not file then return {}, 0 end
  if file:seek("end") < offset then offset = 0 end
  file:seek("set", offset)
  local text = file:read(LONGEST_READ) or ""
  if #text == LONGEST_READ and not text:find("\n", 1, true) then -- one long line: all that there is of it
    text = text .. (file:read(LONGEST_LINE) or "")
  end
  file:close()
  local last = text:match("^.*()\n") -- anchored: from each of its bytes anew it would take minutes where there is none
  if not last then -- no line end: wait, unless so much cannot be a line
    return {}, #text > LONGEST_LINE and offset + #text or offset
  end
  local lines = {}
  for line in text:sub(1, last):gmatch("([^\n]*)\n") do lines[#lines + 1] = line end
  return lines, offset + last
end

return files
