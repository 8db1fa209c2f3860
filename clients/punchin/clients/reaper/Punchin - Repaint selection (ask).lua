-- @description Punchin: Repaint selection (ask)
local here = debug.getinfo(1, "S").source:match("^@(.*[/\\])")
package.path = here .. "?.lua;" .. package.path
require("punchin.actions").repaint_ask()
