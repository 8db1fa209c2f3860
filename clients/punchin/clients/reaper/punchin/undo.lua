-- One undo step around a change, with both counters balanced even when REAPER's API refuses half-way.
local undo = {}

function undo.one_step(proj, title, body)
  reaper.PreventUIRefresh(1)
  reaper.Undo_BeginBlock2(proj)
  local ok, result = xpcall(body, debug.traceback)
  reaper.Undo_EndBlock2(proj, ok and title or title .. " (failed half-way)", -1)
  reaper.PreventUIRefresh(-1)
  reaper.UpdateArrange()
  if not ok then error(result, 0) end
  return result
end

return undo
