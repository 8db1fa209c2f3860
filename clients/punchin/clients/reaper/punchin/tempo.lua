-- The beat grid as REAPER itself plays it: nothing is rebuilt from tempo markers, so ramps and 7/8 come out right.
local json = require("punchin.json")

local tempo = {}

local FLAT_S = 1e-9 -- a point this close to the line between its neighbours says nothing new
local STEP_QN = 0.25

local function points_on_steps(proj, last_qn)
  local qn, seconds = {}, {}
  for i = 0, math.ceil(last_qn / STEP_QN) do
    qn[#qn + 1] = i * STEP_QN
    seconds[#seconds + 1] = reaper.TimeMap2_QNToTime(proj, i * STEP_QN)
  end
  return qn, seconds
end

-- Constant stretches need their two ends only: a song at one tempo is two points.
local function without_flat_points(qn, seconds)
  local kept_qn, kept_s = json.array({ qn[1] }), json.array({ seconds[1] })
  for i = 2, #qn - 1 do
    local before = (seconds[i] - seconds[i - 1]) / (qn[i] - qn[i - 1])
    local after = (seconds[i + 1] - seconds[i]) / (qn[i + 1] - qn[i])
    if math.abs(after - before) > FLAT_S then
      kept_qn[#kept_qn + 1], kept_s[#kept_s + 1] = qn[i], seconds[i]
    end
  end
  kept_qn[#kept_qn + 1], kept_s[#kept_s + 1] = qn[#qn], seconds[#seconds]
  return kept_qn, kept_s
end

-- Where the time signature changes: quarter notes from the start, numerator, denominator. Always holds the first one.
local function signatures(proj, last_qn)
  local changes, measure = json.array(), 0
  local num, den
  repeat
    local _, start_qn, end_qn, measure_num, measure_den = reaper.TimeMap_GetMeasureInfo(proj, measure)
    if measure_num ~= num or measure_den ~= den then
      num, den = measure_num, measure_den
      changes[#changes + 1] = { qn = start_qn, numerator = num, denominator = den }
    end
    measure = measure + 1
  until end_qn >= last_qn or end_qn <= start_qn
  return changes
end

-- The number on the ruler of the bar at the active project's start. 1 where an older REAPER does not tell.
function tempo.first_bar()
  local known, offset
  if reaper.APIExists("get_config_var_string") then known, offset = reaper.get_config_var_string("projmeasoffs") end
  return 1 + math.floor(known and tonumber(offset) or 0)
end

-- Quarter notes and seconds from the project's start to `end_s`, sampled each 1/16 note, plus the signatures.
function tempo.grid(proj, end_s)
  local last_qn = reaper.TimeMap2_timeToQN(proj, end_s) + 1
  local qn, seconds = without_flat_points(points_on_steps(proj, last_qn))
  return { qn = qn, seconds = seconds, signatures = signatures(proj, last_qn), first_bar = tempo.first_bar() }
end

-- The bar that sounds at a time, counted from 1 at the project's start.
function tempo.bar_at(proj, at_s)
  local qn = reaper.TimeMap2_timeToQN(proj, at_s) + 1e-6 -- a bar line belongs to the bar that it begins
  local measure = 0
  while true do
    local _, start_qn, end_qn = reaper.TimeMap_GetMeasureInfo(proj, measure)
    if qn < end_qn or end_qn <= start_qn then return measure + 1 end
    measure = measure + 1
  end
end

-- Where a bar, counted from 1, begins.
function tempo.bar_start_s(proj, bar)
  return (reaper.TimeMap_GetMeasureInfo(proj, bar - 1))
end

return tempo
