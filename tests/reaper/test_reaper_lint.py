"""Every script against REAPER's API as a list of names: what a test run does not reach is read at least."""

import json
import re
import subprocess

import pytest
from fakereaper.host import TABLE, Host
from fakereaper.lint import luacheckrc
from realparts import need

from punchin.clients.install.reaper import files

CALL = re.compile(r"\breaper\.(\w+)")


@pytest.fixture
def scripts(tmp_path):
    for name, data in files(tmp_path).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "luacheckrc").write_text(luacheckrc())
    return tmp_path


def lint(folder, path):
    program = need("luacheck", "apt-get install lua-check")
    return subprocess.run(
        [program, "--config", "luacheckrc", "--no-color", "--formatter", "plain", path],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.real
def test_luacheck_finds_nothing(scripts):
    done = lint(scripts, ".")
    assert done.returncode == 0, done.stdout


@pytest.mark.real
@pytest.mark.parametrize(
    "code", ["reaper.NoSuchThing()", "local r = reaper\nr.GetAudioAccessorStart()", "reaper.defer = 1", "x = 1"]
)
def test_luacheck_can_find_something(scripts, code):
    (scripts / "wrong.lua").write_text(code + "\n")
    assert lint(scripts, "wrong.lua").returncode != 0


def used(scripts):
    names = set()
    for path in scripts.rglob("*.lua"):
        code = re.sub(r"--.*", "", path.read_text())
        names |= set(CALL.findall(code))
    return names


def test_the_selftest_asks_for_exactly_what_the_scripts_use(scripts):
    catalogue = (scripts / "punchin" / "catalogue.lua").read_text()
    listed = set(re.findall(r'^  "(\w+)",$', catalogue.split("catalogue.functions")[1], re.M))
    extensions = {name for name, entry in TABLE.items() if entry["since"] == "extension"}
    assert listed == used(scripts) - extensions


def test_what_reaper_6_lacks_is_asked_for_before_it_is_used(scripts):
    catalogue = (scripts / "punchin" / "catalogue.lua").read_text()
    newer = set(re.findall(r'^  "(\w+)",$', catalogue.split("catalogue.newer")[1].split("}")[0], re.M))
    assert newer == {name for name in used(scripts) if TABLE[name]["since"] == "7.08"}


def test_every_action_is_registered(scripts):
    catalogue = (scripts / "punchin" / "catalogue.lua").read_text()
    listed = set(re.findall(r'^  "([^"]+)",$', catalogue.split("catalogue.actions")[1].split("}")[0], re.M))
    shipped = {path.stem.removeprefix("Punchin - ") for path in scripts.glob("*.lua")}
    assert listed == shipped - {"register", "unregister"} - {"wrong"}


def test_nothing_runs_received_text(scripts):
    for path in scripts.rglob("*.lua"):
        assert not re.search(
            r"(?<![.\w])(load|loadstring|dofile|loadfile)\s*\(|os\.execute|io\.popen", path.read_text()
        ), path


def test_the_table_is_plain_facts():
    kinds = {json.dumps(entry["since"]) for entry in TABLE.values()}
    assert kinds == {'"6.24"', '"7.08"', '"extension"'}


def test_the_fake_hands_out_the_handle_that_was_asked_for(tmp_path):
    """With Lua's collector at work lupa mixes objects up now and then, on Lua 5.3 within a few hundred calls."""
    for lua in ("5.3", "5.4"):
        host = Host(tmp_path, lua)
        for number in range(60):
            host.project.add_track(f"{number}")
        (tmp_path / "ask.lua").write_text(
            "local guids = {}\n"
            "for i = 0, 59 do guids[i] = reaper.GetTrackGUID(reaper.GetTrack(0, i)) end\n"
            "for n = 1, 5000 do\n"
            "  local i, garbage = n * n % 59, { {}, {}, {}, {}, {} }\n"
            "  if reaper.GetTrackGUID(reaper.GetTrack(0, i)) ~= guids[i] then error('another track') end\n"
            "end\n"
        )
        host.run(tmp_path / "ask.lua")
