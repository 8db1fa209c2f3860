"""Installing into a resource folder of REAPER's, and getting out of it again without a trace."""

import json
import resource as limit
import subprocess
import sys
import xml.etree.ElementTree as Tree
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import pytest
from fakereaper.desk import Desk, decode

from punchin.clients import doctor
from punchin.clients.cli import main
from punchin.clients.install import reapack, reaper
from punchin.protocol.errors import BadUsage, PunchinError, Refused
from punchin.protocol.version import PACKAGE

KEY_MAP = b'SCR 4 0 RSabc "Custom: mine.lua" mine.lua\r\nKEY 9 89 _RSabc 0\r\n'


@pytest.fixture
def resource(tmp_path):
    folder = tmp_path / "REAPER höme"
    (folder / "Scripts").mkdir(parents=True)
    (folder / "reaper.ini").write_text("[reaper]\n")
    (folder / "reaper-kb.ini").write_bytes(KEY_MAP)
    (folder / "Scripts" / "mine.lua").write_text("-- mine\n")
    return folder


def everything(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_changes_nothing(resource, capsys):
    before = everything(resource)
    assert main(["install", "reaper", "--resource-path", str(resource), "--dry-run"]) == 0
    assert everything(resource) == before
    assert "Punchin - register.lua" in capsys.readouterr().out


def test_install_check_and_uninstall_leave_the_rest_untouched(resource, capsys):
    before = everything(resource)
    assert main(["install", "reaper", "--resource-path", str(resource)]) == 0
    scripts = resource / "Scripts" / "Punchin"
    assert (scripts / "Punchin - Repaint selection (last preset).lua").is_file()
    assert (resource / "Data" / "Punchin" / "spool").stat().st_mode & 0o777 == 0o700
    assert (resource / "reaper-kb.ini").read_bytes() == KEY_MAP
    assert main(["install", "reaper", "--resource-path", str(resource), "--check"]) == 0
    assert "self-test has not run" in capsys.readouterr().out
    (resource / "Data" / "Punchin" / "selftest.json").write_text("{}")
    assert main(["uninstall", "reaper", "--resource-path", str(resource)]) == 0
    assert everything(resource) == before
    assert not scripts.exists()
    assert main(["install", "reaper", "--resource-path", str(resource), "--check"]) == 1


def test_installing_twice_changes_nothing(resource):
    reaper.install(resource)
    assert {change.what for change in reaper.install(resource)} == {"same"}


def test_an_upgrade_keeps_what_was_edited(resource):
    reaper.install(resource)
    scripts = resource / "Scripts" / "Punchin"
    edited = scripts / "Punchin - Status.lua"
    original = edited.read_bytes()
    edited.write_bytes(b"-- my own\n")
    old = scripts / "Punchin - Next take.lua"
    manifest = json.loads((scripts / "manifest.json").read_text())
    import hashlib

    old.write_bytes(b"-- an older version\n")
    manifest["files"]["Punchin - Next take.lua"] = hashlib.sha256(old.read_bytes()).hexdigest()
    gone = scripts / "Punchin - Gone.lua"
    gone.write_bytes(b"-- dropped since\n")
    manifest["files"]["Punchin - Gone.lua"] = hashlib.sha256(gone.read_bytes()).hexdigest()
    (scripts / "manifest.json").write_text(json.dumps(manifest))
    what = {change.path.name: change.what for change in reaper.install(resource) if change.what != "same"}
    assert what == {
        "Punchin - Status.lua": "keep edited",
        "Punchin - Next take.lua": "update",
        "Punchin - Gone.lua": "remove",
    }
    assert edited.read_bytes() == original
    assert (scripts / "Punchin - Status.lua.edited").read_bytes() == b"-- my own\n"
    assert not gone.exists()


OLD_BRIDGE = """
import sys, time
from pathlib import Path
from punchin.protocol import lock
root = Path(sys.argv[1])
held = lock.take(root / "bridge.lock")
import os
(root / "bridge.beat").write_text(f"pid={os.getpid()}\\tversion={sys.argv[2]}\\ttime={int(time.time())}\\n")
print("beats", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("version", "ends"), [("0.0.1", True), (PACKAGE, False)])
def test_an_upgrade_ends_a_bridge_of_the_old_code(resource, version, ends):
    reaper.install(resource)
    words = [sys.executable, "-c", OLD_BRIDGE, resource / reaper.SPOOL, version]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as old:
        assert old.stdout.readline() == "beats\n"
        reaper.install(resource)
        try:
            assert (old.poll() is None) is not ends
        finally:
            old.kill()


def test_uninstall_keeps_what_was_edited(resource):
    reaper.install(resource)
    edited = resource / "Scripts" / "Punchin" / "Punchin - Status.lua"
    edited.write_bytes(b"-- my own\n")
    reaper.uninstall(resource)
    left = sorted(path.name for path in (resource / "Scripts" / "Punchin").rglob("*"))
    assert left == ["Punchin - Status.lua"]


def test_what_was_edited_is_told_with_where_it_is(resource, capsys):
    where = ["reaper", "--resource-path", str(resource)]
    main(["install", *where])
    edited = resource / "Scripts" / "Punchin" / "Punchin - Status.lua"
    for verb, told in (("install", "stay beside them, as NAME.edited"), ("uninstall", "they stay")):
        edited.write_bytes(b"-- my own\n")
        capsys.readouterr()
        assert main([verb, *where]) == 0
        said = capsys.readouterr().err
        assert said.startswith("note: edited by hand: Punchin - Status.lua; ")
        assert told in said
        assert edited.exists()


def test_a_cure_names_the_folder_of_a_reaper_elsewhere(resource, monkeypatch, tmp_path):
    command = f"punchin install reaper --resource-path '{resource}'"
    assert [cure for *_, cure in reaper.findings(resource)] == [command]
    with pytest.raises(Refused) as refused:
        reaper.uninstall(resource)
    assert refused.value.hint == command
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert [cure for *_, cure in reaper.findings(tmp_path / "REAPER")] == ["punchin install reaper"]


def test_a_full_disk_leaves_no_half_file_and_the_same_command_goes_on(resource, capsys):
    before = everything(resource)
    soft, hard = limit.getrlimit(limit.RLIMIT_FSIZE)
    limit.setrlimit(limit.RLIMIT_FSIZE, (1_000, hard))
    try:
        assert main(["install", "reaper", "--resource-path", str(resource)]) == 1
    finally:
        limit.setrlimit(limit.RLIMIT_FSIZE, (soft, hard))
    assert "then the same command again" in capsys.readouterr().err
    assert not list(resource.rglob("*.new"))
    assert main(["install", "reaper", "--resource-path", str(resource)]) == 0
    assert main(["uninstall", "reaper", "--resource-path", str(resource)]) == 0
    assert everything(resource) == before


@pytest.mark.parametrize(
    "name", ["Scripts/Punchin", "Scripts/Punchin/manifest.json", "Scripts/Punchin/Punchin - Status.lua"]
)
def test_what_stands_in_the_way_is_told_by_name(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    place = tmp_path / "REAPER" / name
    place.mkdir(parents=True)
    (tmp_path / "REAPER" / "reaper.ini").touch()
    if name == "Scripts/Punchin":
        place.rmdir()
        place.touch()
    for words in (["install", "reaper"], ["install", "reaper", "--check"], ["install", "reaper", "--dry-run"]):
        assert main(words) == 1
        said = capsys.readouterr()
        assert str(place) in said.out + said.err or words[-1] == "--check"
        assert "bug" not in said.err


def test_a_damaged_manifest_is_a_line_of_the_doctors(resource, monkeypatch):
    monkeypatch.setattr(reaper, "usual_folders", lambda: [resource])
    reaper.install(resource)
    (resource / "Scripts" / "Punchin" / "manifest.json").write_text("{")
    (found,) = doctor._reaper()
    assert found.verdict == "fail"
    assert "damaged" in found.text
    assert found.cure.endswith("then install again")


def test_a_tilde_in_the_folder_is_the_home(resource, monkeypatch):
    monkeypatch.setenv("HOME", str(resource.parent))
    assert main(["install", "reaper", f"--resource-path=~/{resource.name}", "--dry-run"]) == 0


def test_uninstall_of_nothing_is_refused(resource):
    with pytest.raises(Refused, match="not installed"):
        reaper.uninstall(resource)


def test_a_damaged_manifest_is_no_licence_to_delete(resource):
    reaper.install(resource)
    (resource / "Scripts" / "Punchin" / "manifest.json").write_text("{")
    with pytest.raises(PunchinError, match="damaged"):
        reaper.uninstall(resource)


@pytest.mark.parametrize(
    ("platform", "env", "wanted"),
    [
        ("linux", {"HOME": "/me"}, "/me/.config/REAPER"),
        ("linux", {"HOME": "/me", "XDG_CONFIG_HOME": "/xdg"}, "/xdg/REAPER"),
        ("darwin", {"HOME": "/Users/me"}, "/Users/me/Library/Application Support/REAPER"),
        ("win32", {"APPDATA": "/Users/me/AppData/Roaming"}, "/Users/me/AppData/Roaming/REAPER"),
    ],
)
def test_the_usual_folder_of_each_system(platform, env, wanted):
    assert [str(folder) for folder in reaper.usual_folders(platform, env)] == [wanted]


def test_the_usual_folder_is_found_and_a_wrong_one_refused(resource, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    with pytest.raises(BadUsage, match="not where it usually is"):
        reaper.resource_folder(None)
    (tmp_path / "xdg" / "REAPER").mkdir(parents=True)
    (tmp_path / "xdg" / "REAPER" / "reaper.ini").touch()
    assert reaper.resource_folder(None) == tmp_path / "xdg" / "REAPER"
    with pytest.raises(BadUsage, match=r"no reaper\.ini"):
        reaper.resource_folder(tmp_path)


def test_the_scripts_read_the_configuration_as_it_was_written(resource):
    reaper.install(resource)
    text = (resource / "Scripts" / "Punchin" / "bridge.cfg").read_text()
    settings = decode(text.replace("\n", "\t"))
    assert settings["spool"] == str(resource / "Data" / "Punchin" / "spool")
    assert settings["argument1"] == sys.executable
    assert settings["variations_max"] == "16"


def test_register_adds_all_actions_and_asks_for_keys(tmp_path):
    desk = Desk(tmp_path)
    desk.press("register")
    assert len(desk.host.commands) == 16
    assert len(desk.host.shortcut_dialogs) == 4
    command = desk.host.persisted["PUNCHIN", "watcher_command"]
    assert command.startswith("_RS")
    desk.press("unregister")
    assert desk.host.commands == {}
    assert ("PUNCHIN", "watcher_command") not in desk.host.persisted


def test_register_does_without_the_dialog_of_reaper_7(tmp_path):
    desk = Desk(tmp_path, lua="5.3", version="6.24")
    desk.press("register")
    assert len(desk.host.commands) == 16
    assert "Give them keys there" in desk.host.messages[0]
    desk.press("unregister")
    assert desk.host.commands == {}


def test_the_selftest_passes_and_the_check_reads_it(desk):
    desk.press("selftest")
    desk.host.tick(3)
    report = json.loads((desk.resource / "Data" / "Punchin" / "selftest.json").read_text())
    assert [check for check in report["checks"] if not check["ok"]] == []
    assert len(report["checks"]) >= 9
    assert desk.project.tracks == []
    told = list(reaper.findings(desk.resource))
    assert ("ok", f"REAPER {report['reaper']}: self-test passed, {len(report['checks'])} checks", "") in told


def test_a_selftest_that_fails_is_told_by_the_check(desk):
    path = desk.resource / "Data" / "Punchin" / "selftest.json"
    checks = [{"name": "split", "ok": False, "found": "0.25"}, {"name": "files", "ok": True, "found": ""}]
    path.write_text(json.dumps({"reaper": "7.0", "checks": checks}))
    verdict, text, _ = list(reaper.findings(desk.resource))[-1]
    assert (verdict, text) == ("fail", "REAPER 7.0: self-test: split: 0.25")


def test_the_selftest_wants_an_empty_project(desk):
    desk.simple()
    desk.press("selftest")
    assert "empty project" in desk.host.messages[0]
    assert len(desk.project.tracks) == 1


def test_the_help_names_the_verbs():
    done = subprocess.run(
        [sys.executable, "-m", "punchin.clients.cli", "install", "--help"], capture_output=True, text=True, check=True
    )
    assert "--resource-path" in done.stdout


def test_the_reapack_index_names_every_script_and_where_it_is():
    tree = Tree.fromstring(reapack.index("https://host/raw/v1", "1.2.3", datetime(2026, 5, 4, tzinfo=UTC)))
    sources = tree.findall("category/reapack/version/source")
    assert {source.get("file") for source in sources} == set(reaper.scripts())
    actions = {source.get("file") for source in sources if source.get("main") == "main"}
    assert actions == {name for name in reaper.scripts() if "/" not in name}
    urls = {source.get("file"): source.text for source in sources}
    assert urls["Punchin - Next take.lua"] == (
        "https://host/raw/v1/clients/punchin/clients/reaper/Punchin%20-%20Next%20take.lua"
    )
    root = Path(__file__).parents[2]
    for url in urls.values():
        assert (root / unquote(url.removeprefix("https://host/raw/v1/"))).is_file()


def test_scripts_that_reapack_put_elsewhere_find_the_bridge(tmp_path):
    desk = Desk(tmp_path)
    elsewhere = desk.resource / "Scripts" / "Punchin repository" / "Punchin"
    for name, data in reaper.scripts().items():
        (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / name).write_bytes(data)
    desk.simple()
    desk.remember_words()
    desk.host.run(elsewhere / "Punchin - Repaint selection (last preset).lua")
    assert desk.request()["action"] == "repaint"
    desk.host.quit()


def test_doctor_reads_the_selftest_where_reaper_is_in_its_usual_place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert list(doctor._reaper()) == []
    (tmp_path / "REAPER").mkdir()
    reaper.install(tmp_path / "REAPER")
    texts = [finding.text for finding in doctor._reaper()]
    assert any("scripts of version" in text for text in texts)
    assert any("self-test has not run" in text for text in texts)
