-- A split as one cut. REAPER may let both halves overlap and fade, as the preferences for the user's own splits say.
local selection = require("punchin.selection")

local cut = {}

local function without_fade(item, name)
  reaper.SetMediaItemInfo_Value(item, name, 0)
  reaper.SetMediaItemInfo_Value(item, name .. "_AUTO", -1)
end

local function begin_at(item, at_s)
  local start_s, end_s = selection.bounds(item)
  for i = 0, reaper.CountTakes(item) - 1 do
    local take = reaper.GetTake(item, i)
    if take then -- an empty take lane is nil
      local rate = reaper.GetMediaItemTakeInfo_Value(take, "D_PLAYRATE")
      local offset_s = reaper.GetMediaItemTakeInfo_Value(take, "D_STARTOFFS")
      reaper.SetMediaItemTakeInfo_Value(take, "D_STARTOFFS", offset_s + (at_s - start_s) * rate)
    end
  end
  reaper.SetMediaItemInfo_Value(item, "D_POSITION", at_s)
  reaper.SetMediaItemInfo_Value(item, "D_LENGTH", end_s - at_s)
end

-- Splits `item`, which stays the left half; returns the right one, nil where the item does not reach over `at_s`.
function cut.at(item, at_s)
  local right = reaper.SplitMediaItem(item, at_s)
  if not right then return nil end
  reaper.SetMediaItemInfo_Value(item, "D_LENGTH", at_s - selection.bounds(item))
  if selection.bounds(right) ~= at_s then begin_at(right, at_s) end
  without_fade(item, "D_FADEOUTLEN")
  without_fade(right, "D_FADEINLEN")
  return right
end

return cut
