"""`punchin doctor`: a cure below every line that is not ok, and a report that holds what a stranger needs."""

import importlib.util
import json
import os
import signal
import stat
from functools import partial

import pytest
import zmq
from faults.lives import daemon_pid, order, run, wait_until

from punchin.clients import connect as connecting
from punchin.clients import doctor
from punchin.clients.cli import main
from punchin.clients.connect import connect
from punchin.protocol import version
from punchin.protocol.errors import Refused


def bad():
    """What is amiss; that the demo model alone is here is no news."""
    found = [finding for finding in doctor.findings() if finding.verdict != "ok" and "demo model" not in finding.text]
    for finding in found:
        assert finding.cure, finding
        assert finding.cure != "punchin doctor", "that is where we are"
    return {finding.text: (finding.verdict, finding.cure) for finding in found}


def only(found):
    ((text, (verdict, cure)),) = found.items()
    return text, verdict, cure


def test_all_is_well(client):
    assert bad() == {}
    assert main(["doctor"]) == 0


def test_what_is_not_installed(client, monkeypatch):
    there = importlib.util.find_spec
    gone = ("torch", "transformers", "safetensors", "pedalboard")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else there(name))
    monkeypatch.setattr(zmq, "has", lambda name: False)
    assert [verdict for verdict, _ in bad().values()] == ["fail", "fail", "warn"]


def test_a_damaged_journal(client, home):
    client.stop()
    (home / "state" / "journal.sqlite").write_bytes(b"garbage" * 1_000)
    text, verdict, cure = only(bad())
    assert "is no journal" in text
    assert verdict == "fail"
    assert cure.startswith(f"move {home / 'state' / 'journal.sqlite'} elsewhere")
    assert main(["doctor"]) == 1


def test_takes_that_are_missing_or_cut_short(client, home):
    record, _ = run(client)
    sha256 = record.takes[0].audio.sha256
    blob = home / "state" / "blobs" / sha256[:2] / sha256[2:]
    for change in (lambda: blob.write_bytes(blob.read_bytes()[:-9]), blob.unlink):
        change()
        assert only(bad())[:2] == ("1 takes of done jobs are not, or not whole, in the store", "fail")
        with pytest.raises(Refused, match=r"damaged|not in the store"):
            client.get(sha256)
    run(client)  # what `redo` does
    assert not bad()
    assert client.get_audio(record.takes[0].audio).shape == (2, 4_800)


@pytest.mark.slow
def test_a_stuck_daemon(client, monkeypatch):
    monkeypatch.setattr(connecting, "connect", partial(connect, wait_s=2.0))  # doctor's own patience is for slow disks
    pid = daemon_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        text, verdict, cure = only(bad())
    finally:
        os.kill(pid, signal.SIGCONT)
    assert f"pid {pid}" in text
    assert (verdict, cure) == ("fail", doctor.SEND)


def test_a_full_disk(monkeypatch):
    monkeypatch.setenv("PUNCHIN_FAULTS", "journal.move=full")
    with connect() as client:
        client.submit(order())
        wait_until(lambda: client.status().trouble, 5, "the trouble")
        text, _, cure = only(bad())
    assert "No space left on device" in text
    assert "punchin gc" in cure


def test_a_folder_that_cannot_be_looked_into_is_named_and_the_rest_is_checked(client, monkeypatch, tmp_path):
    models = tmp_path / ("x" * 300)  # longer than any disk has names; a folder of somebody else's ends alike
    monkeypatch.setenv("PUNCHIN_MODELS", str(models))
    found = bad()
    assert any(str(models) in text and "cannot be looked into" in text for text in found)
    assert {verdict for verdict, _ in found.values()} == {"fail"}
    assert any("daemon" in finding.text for finding in doctor.findings())


def test_paused_and_of_another_version(client, monkeypatch):
    client.pause()
    monkeypatch.setattr(doctor, "PACKAGE", "9.0.0")
    assert [cure for _, cure in bad().values()] == ["punchin stop --when-idle", "punchin resume"]


def test_the_report_holds_findings_logs_and_tracebacks(client, home, capsys):
    run(client)
    state = home / "state"
    (state / "crash-20260101-000000-1.txt").write_text("Traceback of yesterday\n")
    (state / "logs" / "daemon.stderr").write_text("what python said\n")
    assert main(["doctor", "--report"]) == 0
    path = state / "doctor-report.txt"
    assert f"written to {path}" in capsys.readouterr().err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    for part in ("warn  no model but", '"what":"ready"', "Traceback of yesterday", "what python said", "worker.log"):
        assert part in text


def test_a_report_that_cannot_be_written_is_told(client, home, capsys):
    (home / "state" / "doctor-report.txt").mkdir()
    assert main(["doctor", "--report"]) == 1
    assert "the report cannot be written" in capsys.readouterr().err


def test_as_json(client, capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {finding["verdict"] for finding in found} <= {"ok", "warn"}
    assert f"punchin {version.PACKAGE}" in found[0]["text"]
