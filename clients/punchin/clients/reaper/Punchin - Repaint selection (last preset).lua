-- @description Punchin: Repaint selection (last preset)
local here = debug.getinfo(1, "S").source:match("^@(.*[/\\])")
package.path = here .. "?.lua;" .. package.path
require("punchin.actions").repaint_last()
