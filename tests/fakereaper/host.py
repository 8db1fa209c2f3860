"""Runs Lua scripts against the fake: one Lua state a script, the API's table as the only door, ticks on demand.

A breach of the API (unknown name, wrong count or type of arguments, stale handle, unbalanced counters, an edit outside
an undo block, a dialog from the background) is kept even where the script catches it, and raised when the script ends.
"""

from __future__ import annotations

import importlib
import json
import math
import time
from collections import Counter
from pathlib import Path

from fakereaper import calls_items, calls_media, calls_project, calls_tracks, calls_user
from fakereaper.model import Handle, Project

TABLE = json.loads((Path(__file__).parent / "api.json").read_text())
HANDLES = {"ReaProject", "MediaTrack", "MediaItem", "MediaItem_Take", "PCM_source", "AudioAccessor", "HWND",
           "KbdSectionInfo"}  # fmt: skip
TICK_S = 1 / 30

# The collector stays off. lupa finds the userdata of a Python object by a number in a weak table; Lua 5.3 clears the
# entries of dead ones before their finalizers run, and lupa gives their numbers away meanwhile: an object whose own
# userdata waits for its finalizer is then handed out as another one, a project as a track.
PRELUDE = """
collectgarbage("stop")
local bind, taken, opened = ...
local io_open = io.open
io.open = function(...)
  opened()
  return io_open(...)
end
local bound = {}
reaper = setmetatable({}, {
  __index = function(_, name)
    if bound[name] == nil then bound[name] = bind(name) end
    return bound[name]
  end,
  __newindex = function(_, name) taken(name) end,
})
"""


class Breach(Exception):
    """A script did what the API does not allow."""


class ReaperArray(Handle):
    kind = "reaper.array"

    def __init__(self, script, size):
        super().__init__()
        self.script, self.values = script, [0.0] * size

    def clear(self, value=0.0):
        self.values[:] = [float(value)] * len(self.values)

    def table(self, offset=1, size=None):
        stop = None if size is None else offset - 1 + size
        return self.script.lua.table_from(self.values[offset - 1 : stop])


class Script:
    """One running script: its own Lua state, as in REAPER."""

    def __init__(self, host, path, command):
        self.host, self.path, self.command = host, Path(path), command
        self.lua = host.lupa.LuaRuntime(unpack_returned_tuples=True)
        self.deferred, self.at_exit, self.options, self.alive, self.in_tick = [], [], 0, True, False
        self.open_accessors = 0
        self.lua.eval("function(text, ...) return load(text)(...) end")(
            PRELUDE, self.bind, host.breach_write, host.opened
        )  # fmt: skip

    def bind(self, name):
        return self.host.bind(self, name)

    def run(self):
        self.guarded(lambda: self.lua.eval("dofile")(str(self.path)))

    def tick(self):
        queue, self.deferred, self.in_tick = self.deferred, [], True
        for function in queue:
            self.guarded(function)
        self.in_tick = False
        if not self.deferred:
            self.end()

    def guarded(self, function):
        self.host.running.append(self)
        try:
            function()
        except Exception:
            self.deferred = []
            self.end()
            if not self.host.breaches:
                raise
        finally:
            self.host.running.pop()
        self.host.check_balance(self)

    def end(self):
        if self.alive:
            self.alive = False
            for function in self.at_exit:
                self.guarded(function)
            self.at_exit = []


class Host:
    """REAPER as scripts see it. `version` "6.24" lacks what 7.08 brought; `clock` is fake unless `real_time`."""

    def __init__(self, resource, lua="5.4", version="7.60", real_time=False, extensions=()):
        self.lupa = importlib.import_module("lupa.lua" + lua.replace(".", ""))
        self.resource, self.version, self.real_time = Path(resource), version, real_time
        self.extensions = set(extensions)
        self.projects, self.current, self.now = [Project()], 0, 1000.0
        self.ext, self.persisted, self.commands, self.scripts, self.running = {}, {}, {}, [], []
        self.refresh, self.breaches, self.calls, self.total_calls, self.opens = 0, [], Counter(), 0, 0
        self.help, self.console, self.messages, self.spoken, self.toggles = [], [], [], [], {}
        self.inputs, self.dialogs, self.shortcut_dialogs, self.processes = [], [], [], []
        self.execute = lambda command, timeout_ms: None
        self.button = 6  # every message box is answered with Yes
        self.crossfades_splits = True  # where halves overlap: the left one over the split, the right one before it
        self.split_overlap_s = (0.0, 0.0)

    @property
    def project(self) -> Project:
        return self.projects[self.current]

    def clock(self) -> float:
        return time.perf_counter() if self.real_time else self.now

    # -- running ------------------------------------------------------------------------------------------------
    def run(self, path, command=None):
        """Run an action as a key press does. Raises Breach at the first thing the API does not allow."""
        running = [s for s in self.scripts if s.path == Path(path) and s.alive]
        if running and not running[0].options & 1:
            self.breaches.append(f"{path} still runs: REAPER would show the task control dialog")
        for script in running:
            script.deferred = []
            script.end()
            if not script.options & 2:
                return
        script = Script(self, path, command if command is not None else -1)
        script.run()
        if script.deferred and script.alive:
            self.scripts.append(script)
        else:
            script.end()
        self.raise_breaches()

    def tick(self, count=1):
        """One beat of REAPER's timer: every deferred function once."""
        for _ in range(count):
            self.now += TICK_S
            for script in [s for s in self.scripts if s.alive]:
                script.tick()
            self.scripts = [s for s in self.scripts if s.alive]
            self.raise_breaches()

    def quit(self):
        for script in self.scripts:
            script.deferred = []
            script.end()
        self.scripts, self.ext = [], {}

    def raise_breaches(self):
        if self.breaches:
            found, self.breaches = self.breaches, []
            raise Breach("; ".join(found))

    def check_balance(self, script):
        for project in self.projects:
            if project.undo_depth:
                self.breaches.append(f"{script.path.name}: {project.undo_depth} undo block(s) left open")
                project.undo_depth = 0
        if self.refresh:
            self.breaches.append(f"{script.path.name}: PreventUIRefresh is off by {self.refresh}")
            self.refresh = 0
        if script.open_accessors and not (script.deferred and script.alive):
            self.breaches.append(f"{script.path.name}: {script.open_accessors} audio accessor(s) not destroyed")
            script.open_accessors = 0

    # -- the door -----------------------------------------------------------------------------------------------
    def exists(self, name) -> bool:
        entry = TABLE.get(name)
        if entry is None:
            return False
        if entry["since"] == "extension":
            return name in self.extensions
        return tuple(map(int, entry["since"].split("."))) <= tuple(map(int, self.version.split(".")))

    def breach(self, text):
        self.breaches.append(text)
        raise Breach(text)

    def opened(self):
        self.opens += 1

    def breach_write(self, name):
        self.breach(f"a script wrote to reaper.{name}")

    def bind(self, script, name):
        if not self.exists(name):
            self.breach(f"reaper.{name} does not exist in REAPER {self.version}")
        implementation = FUNCTIONS.get(name)
        if implementation is None:
            self.breach(f"the fake cannot do reaper.{name} yet")
        kinds = TABLE[name]["args"]
        required = sum(not kind.endswith("?") for kind in kinds)

        def call(*args):
            self.calls[name] += 1
            self.total_calls += 1
            if not required <= len(args) <= len(kinds):
                self.breach(f"reaper.{name} takes {required} to {len(kinds)} arguments, got {len(args)}")
            values = [self.check(name, i, kind, arg) for i, (kind, arg) in enumerate(zip(kinds, args, strict=False))]
            return implementation(script, *values)

        return call

    def check(self, name, index, kind, value):
        where = f"reaper.{name} argument {index + 1}"
        optional, kind = kind.endswith("?"), kind.rstrip("?")
        if optional and value is None:
            return None
        if kind == "ReaProject":
            if value is None or (value == 0 and not isinstance(value, bool)):
                return self.project
            if not isinstance(value, Project) or not value.alive or value not in self.projects:
                self.breach(f"{where}: not an open project: {value!r}")
            return value
        if kind in HANDLES or kind == "reaper.array":
            if not isinstance(value, Handle) or value.kind != kind:
                self.breach(f"{where}: wants {kind}, got {value!r}")
            if not value.alive:
                self.breach(f"{where}: stale {kind}")
            return value
        return self.check_plain(where, kind, value)

    def check_plain(self, where, kind, value):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = {
            "boolean": isinstance(value, bool),
            "string": isinstance(value, str),
            "number": number and math.isfinite(value),
            "integer": number and math.isfinite(value) and value == int(value),
            "function": self.lupa.lua_type(value) == "function",
            "identifier": isinstance(value, Handle) or value is None,
        }[kind]
        if not fits:
            self.breach(f"{where}: wants {kind}, got {value!r}")
        return int(value) if kind == "integer" else value

    # -- rules that several calls share ---------------------------------------------------------------------------
    def editing(self, project):
        """Every edit stands inside an undo block, or a deferred script would leave a change without a step."""
        project.changes += 1
        if not project.undo_depth:
            self.breach("an edit outside an undo block")

    def foreground(self, script, what):
        if script.in_tick:
            self.breach(f"{what} from the background steals the focus")


FUNCTIONS = {}
for _module in (calls_items, calls_media, calls_project, calls_tracks, calls_user):
    FUNCTIONS |= _module.CALLS
