-- A split as one cut. REAPER may let both halves overlap and fade, as the preferences for the user's own splits say.
local selection = require("punchin.selection")

local cut = {}

local CROSSFADES_SPLITS = 40912 -- Options: Toggle auto-crossfade on split
local TOUCH_S = 5e-5 -- a frame or two: what rounding may make of two times that are meant to be one

-- Runs `body` while splits do not overlap: what overlaps would move a take's envelopes and stretch markers apart.
function cut.hard(body)
  local crossfades = reaper.GetToggleCommandState(CROSSFADES_SPLITS) == 1
  if crossfades then reaper.Main_OnCommandEx(CROSSFADES_SPLITS, 0, 0) end
  local ok, result = xpcall(body, debug.traceback)
  if crossfades then reaper.Main_OnCommandEx(CROSSFADES_SPLITS, 0, 0) end
  if not ok then error(result, 0) end
  return result
end

-- Whether what lies from `start_s` to `end_s` reaches between two times. Not where the two only touch: a cut there
-- would take the fade away that an item begins or ends with.
function cut.meets(start_s, end_s, from_s, to_s)
  return to_s - start_s > TOUCH_S and end_s - from_s > TOUCH_S
end

local function without_fade(item, name)
  reaper.SetMediaItemInfo_Value(item, name, 0)
  reaper.SetMediaItemInfo_Value(item, name .. "_AUTO", -1)
end

-- Splits `item`, which stays the left half; returns the right one, nil where the item does not reach over `at_s`.
-- Inside `cut.hard`.
function cut.at(item, at_s)
  local right = reaper.SplitMediaItem(item, at_s)
  if not right then return nil end
  reaper.SetMediaItemInfo_Value(item, "D_LENGTH", at_s - selection.bounds(item))
  without_fade(item, "D_FADEOUTLEN") -- a preference of its own
  without_fade(right, "D_FADEINLEN")
  return right
end

return cut
