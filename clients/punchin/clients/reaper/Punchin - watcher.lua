-- @description Punchin: watcher (starts by itself; lands takes as they are done)
local here = debug.getinfo(1, "S").source:match("^@(.*[/\\])")
package.path = here .. "?.lua;" .. package.path
require("punchin.watch").run()
