-- @description Punchin: selftest
local here = debug.getinfo(1, "S").source:match("^@(.*[/\\])")
package.path = here .. "?.lua;" .. package.path
require("punchin.selftest").run()
