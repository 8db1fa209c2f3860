-- Words for the user, in REAPER's own places: nothing here opens a window from the background.
local show = {}

-- The answer to a key press that cannot be done. A native dialog: the user just asked, and screen readers read it.
function show.refusal(sentence)
  reaper.MB(sentence, "Punchin", 0)
end

function show.dialog(text)
  reaper.MB(text, "Punchin", 0)
end

-- Progress: a line in REAPER's help area, which takes no focus.
function show.line(text)
  reaper.Help_Set("Punchin: " .. text, true)
end

-- Something that happened: also kept in the console, which stays closed, and spoken where OSARA is installed.
function show.news(text)
  show.line(text)
  reaper.ShowConsoleMsg("!SHOW:Punchin: " .. text .. "\n")
  if reaper.APIExists("osara_outputMessage") then reaper.osara_outputMessage("Punchin: " .. text) end
end

return show
