"""Full-size models on the meta device have exactly the released files' keys and shapes."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from punchin.engine.model import AceStep
from punchin.engine.spec import SPEC_2B, SPEC_XL, VAE_RELEASED
from punchin.engine.vae import Vae

VECTORS = Path(__file__).parents[1] / "vectors"
RELEASED = {
    "2b": (AceStep, SPEC_2B, 677, 2_393_872_518, "ba29d8bddbb6ace65675f6a757a13c00"),
    "xl": (AceStep, SPEC_XL, 829, 4_987_310_726, "3a28a410c2246f125153ef792d8bc828"),
    "vae": (Vae, VAE_RELEASED, 365, 168_695_426, "51420834e54474986a7f4be0e4d6f687"),
}


def shapes(name):
    kind, spec, *_ = RELEASED[name]
    with torch.device("meta"):
        module = kind(spec)
    return {key: list(tensor.shape) for key, tensor in module.state_dict().items()}


def fingerprint(manifest):
    """DiffSynth's: md5 over the sorted entries `key:shape` and `key`."""
    entries = [f"{key}:{'_'.join(map(str, shape))}" for key, shape in manifest.items()] + list(manifest)
    return hashlib.md5(",".join(sorted(entries)).encode()).hexdigest()


@pytest.mark.parametrize("name", RELEASED)
def test_keys_and_shapes_are_the_released_ones(name):
    assert shapes(name) == json.loads((VECTORS / f"keys-{name}.json").read_text())


@pytest.mark.parametrize("name", RELEASED)
def test_count_size_and_fingerprint_are_the_released_ones(name):
    _, _, keys, numbers, md5 = RELEASED[name]
    manifest = shapes(name)
    assert len(manifest) == keys
    assert sum(torch.Size(shape).numel() for shape in manifest.values()) == numbers
    assert fingerprint(manifest) == md5


def test_a_module_holds_nothing_but_weights():
    """A buffer made on the meta device would have no value after `load_state_dict(assign=True)`."""
    for kind, spec, *_ in RELEASED.values():
        with torch.device("meta"):
            assert list(kind(spec).buffers()) == []
