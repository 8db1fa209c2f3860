"""The bench compares before it times, interleaves, and prints what can be read by machines and by people."""

import argparse
import json
import subprocess
import sys

import pytest
import torch
from faults.lives import is_running, wait_until, workers_of

from punchin.engine import bench, benchpeers, benchrounds
from punchin.protocol.errors import PunchinError, Refused


def test_rounds_are_interleaved_in_a_turning_order_and_the_first_is_not_counted():
    calls = []

    def contestant(name):
        return lambda: calls.append(name) or torch.zeros(1)

    seconds = benchrounds.interleaved({"a": contestant("a"), "b": contestant("b")}, 3)
    assert calls == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert [len(each) for each in seconds.values()] == [3, 3]
    calls.clear()
    benchrounds.interleaved({"a": contestant("a"), "b": contestant("b")}, 1, warm_up=0)
    assert calls == ["a", "b"]


def test_what_is_one_case_to_the_peer_runs_once_a_round():
    same, other = (lambda: torch.zeros(1)), (lambda: torch.zeros(1))
    theirs = {"warm": same, "step": other, "cold": same}
    assert benchrounds._rivals(["step", "cold", "warm"], theirs) == [["step"], ["cold", "warm"]]


def test_the_table_says_case_times_and_ratio():
    report = {
        "size": "full",
        "device": "cpu",
        "dtype": "bfloat16",
        "threads": 2,
        "torch": "2",
        "diffusers": "0.42.1",
        "rounds": 3,
        "warm_up": 1,
        "cases": {
            "VAE decode 10 s": benchrounds.summary(
                {
                    "ours": [benchrounds.Spent(2.0, 3.0)] * 2,
                    "diffusers": [benchrounds.Spent(6.0, 12.0), benchrounds.Spent(7.0, 12.0)],
                }
            )
        },
        "peak_bytes": {"ours": 2**30, "diffusers": 4 * 2**30},
    }
    text = benchrounds.markdown(report)
    assert "| VAE decode 10 s | 6.500 s | 2.000 s | 3.2x (2.9 to 3.6) | 4.0x |" in text
    assert "4.00 GiB | 1.00 GiB | 4.0x | |" in text


def test_an_unknown_case_is_refused_with_those_there_are():
    with pytest.raises(Refused, match="no case is like warp") as refused:
        benchrounds._chosen(["warp"], ["DiT step 10 s", "VAE decode 10 s"])
    assert "DiT step 10 s; VAE decode 10 s" in refused.value.hint


@pytest.mark.slow
def test_a_small_run_prints_json(capsys):
    given = ["--size", "small", "--case", "DiT step 10 s", "--case", "VAE", "--rounds", "1", "--threads", "1"]
    assert bench.main([*given, "--device", "cpu", "--no-peak", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["cases"]) == {"DiT step 10 s", "VAE decode 10 s"}
    assert all(row["ratio"] > 0 and row["ours_s"] > 0 for row in report["cases"].values())
    assert report["diffusers"] == "0.42.1"


@pytest.mark.nightly
def test_a_wrong_answer_is_not_timed(monkeypatch, capsys):
    honest = benchpeers.ours

    def hasty(made):
        cases = honest(made)
        return {"DiT step 10 s": lambda: 0.5 * cases["DiT step 10 s"]()}

    monkeypatch.setattr(benchpeers, "ours", hasty)
    given = ["--size", "small", "--rounds", "1", "--threads", "1", "--device", "cpu", "--no-peak"]
    assert bench.main(given) == 4
    assert "DiT step 10 s: results differ by 0.5" in capsys.readouterr().err


@pytest.mark.nightly
def test_peaks_are_measured_alone(capsys):
    given = ["--size", "small", "--case", "DiT step 10 s", "--rounds", "1", "--threads", "1", "--device", "cpu"]
    assert bench.main([*given, "--json"]) == 0
    peaks = json.loads(capsys.readouterr().out)["peak_bytes"]
    assert 0 < peaks["ours"] < peaks["diffusers"]


@pytest.mark.parametrize("given", [["--rounds", "0"], ["--threads", "-1"], ["--warm-up", "-1"]])
def test_a_number_that_is_none_is_a_wrong_command_line(given, capsys):
    assert bench.main(given) == 2
    assert "is no whole number from " in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cuda:77", "meta", "nix"])
def test_a_device_that_is_not_there_is_told_without_a_traceback(capsys, device):
    assert bench.main(["--device", device]) == 2
    assert f"device {device}" in capsys.readouterr().err


def test_a_case_that_there_is_not_is_told_before_the_device_is_taken(capsys, monkeypatch):
    monkeypatch.setattr(bench.Holder, "device", lambda _: pytest.fail("the device was taken"))
    assert bench.main(["--case", "nonsense"]) == 4
    assert "no case is like nonsense\n  there are: " in capsys.readouterr().err


@pytest.mark.slow
def test_a_contestant_that_fails_alone_is_told():
    asked = argparse.Namespace(size="small", device="nowhere", dtype="float32", threads=1)
    with pytest.raises(PunchinError, match="ours alone ended with exit status 2"):
        benchrounds.peaks(asked, say=lambda _: None)


@pytest.mark.slow
def test_a_killed_bench_leaves_no_contestant_behind(tmp_path):
    said = tmp_path / "said"
    given = ["--size", "small", "--case", "DiT step 10 s", "--rounds", "1", "--threads", "1", "--device", "cpu"]
    with said.open("wb") as talk:
        process = subprocess.Popen([sys.executable, "-m", "punchin.engine.bench", *given], stderr=talk)
    wait_until(lambda: "ours alone" in said.read_text(), 120, "the measurement of memory")
    wait_until(lambda: workers_of(process.pid), 10, "its process")
    below = workers_of(process.pid)
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_running, below)), 5, "the contestant's end")
