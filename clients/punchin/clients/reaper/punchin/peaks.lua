-- Waveforms of landed takes, built a piece a tick. REAPER 6 lacks the call and draws them by itself.
local peaks = {}

local BEGIN, RUN, FINISH = 0, 1, 2

local building = {} -- { proj, source }

function peaks.build(proj, source)
  if not reaper.APIExists("PCM_Source_BuildPeaks") then return end
  if reaper.PCM_Source_BuildPeaks(source, BEGIN) ~= 0 then building[#building + 1] = { proj, source } end
end

function peaks.waiting()
  return #building > 0
end

local function is_there(proj, source)
  return reaper.ValidatePtr2(0, proj, "ReaProject*") and reaper.ValidatePtr2(proj, source, "PCM_source*")
end

-- One piece of the first source; one that was undone away or closed with its project meanwhile is dropped.
function peaks.step()
  local proj, source = table.unpack(building[1])
  if not is_there(proj, source) then
    table.remove(building, 1)
  elseif reaper.PCM_Source_BuildPeaks(source, RUN) == 0 then
    reaper.PCM_Source_BuildPeaks(source, FINISH)
    table.remove(building, 1)
  end
end

return peaks
