-- @description Punchin: unregister
local here = debug.getinfo(1, "S").source:match("^@(.*[/\\])")
package.path = here .. "?.lua;" .. package.path
require("punchin.register").remove()
