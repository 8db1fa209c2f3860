"""What a training saves: bit for bit, whole or not at all; and the average of weights by its definition."""

import errno
import os
import subprocess
import sys

import pytest
import torch

from punchin.protocol.errors import PunchinError, Refused
from punchin.training import state
from punchin.training.ema import Ema


def test_tensors_and_facts_come_back_bit_for_bit(tmp_path):
    odd = torch.tensor([float("nan"), -0.0, 1e-45, float("inf")])
    tensors = {"model.a": odd, "model.b.c": torch.arange(6).view(2, 3), "half": torch.ones(3, dtype=torch.bfloat16)}
    path = state.save(tmp_path / "deep" / "it.safetensors", tensors, {"step": 7, "name": "é"})
    got, facts = state.load(path)
    assert facts == {"step": 7, "name": "é"}
    assert {name: each.dtype for name, each in got.items()} == {name: each.dtype for name, each in tensors.items()}
    for name, each in tensors.items():
        assert got[name].view(torch.uint8).tolist() == each.view(torch.uint8).tolist()
    assert set(state.under("model", got)) == {"a", "b.c"}


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = state.save(tmp_path / "it.safetensors", {"a": torch.ones(2)}, {})
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PunchinError, match="No space left") as caught:
        state.save(path, {"a": torch.zeros(2)}, {})
    assert "MB of room" in caught.value.hint
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [b"", b"junk" * 100])
def test_a_broken_file_is_named(tmp_path, content):
    path = tmp_path / "it.safetensors"
    path.write_bytes(content)
    with pytest.raises(Refused, match=r"it\.safetensors"):
        state.load(path)


def test_another_programs_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(Refused, match="no state of a training"):
        state.load(tmp_path / "weights.safetensors")


def stepped(module, optimizer, steps, seed):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))
    for _ in range(steps):
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()


def test_an_optimizer_goes_on_as_if_nothing_had_happened(tmp_path):
    def fresh():
        torch.manual_seed(1)
        module = torch.nn.Linear(4, 4)
        return module, torch.optim.AdamW(module.parameters(), lr=0.1)

    whole, one = fresh()
    stepped(whole, one, 5, seed=3)
    stepped(whole, one, 5, seed=4)
    broken, two = fresh()
    stepped(broken, two, 5, seed=3)
    saved = state.module_tensors("m", broken) | state.optimizer_tensors("o", two)
    got, _ = state.load(state.save(tmp_path / "s.safetensors", saved, {}))
    again, three = fresh()
    again.load_state_dict(state.under("m", got))
    state.restore_optimizer(three, state.under("o", got))
    stepped(again, three, 5, seed=4)
    assert torch.equal(again.weight, whole.weight)
    without, four = fresh()
    without.load_state_dict(state.under("m", got))
    stepped(without, four, 5, seed=4)
    assert not torch.equal(without.weight, whole.weight), "the check can fail"


def test_the_average_is_its_definition():
    module = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(2.0)
    ema = Ema(module, decay=0.9)
    want = 2.0
    for step, value in enumerate([3.0, -1.0, 5.0] * 40):
        with torch.no_grad():
            module.weight.fill_(value)
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        want = decay * want + (1 - decay) * value
    assert float(ema.average["weight"]) == pytest.approx(want, abs=1e-5)
    live = ema.write()
    assert float(module.weight.detach()) == pytest.approx(want, abs=1e-5)
    ema.unwrite(live)
    assert float(module.weight.detach()) == 5.0


def test_a_folder_is_one_training_s_until_its_process_ends(tmp_path):
    out = tmp_path / "o"
    code = "import sys, time; from pathlib import Path; from punchin.training import state\n"
    code += "with state.alone(Path(sys.argv[1])): print('mine', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"mine\n"
        with (
            pytest.raises(Refused, match=f"another training is at work in {out}"),
            state.alone(out),
        ):
            pytest.fail("two at once")
        other.kill()
    for _ in range(2):  # a kill frees it, and so does an end
        with state.alone(out):
            pass
    (tmp_path / "file").touch()
    with pytest.raises(PunchinError, match="cannot be written"), state.alone(tmp_path / "file"):
        pytest.fail("that is no folder")
