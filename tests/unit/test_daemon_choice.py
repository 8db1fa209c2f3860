"""Which model a job gets that names none."""

import pytest

from punchin.daemon import choice
from punchin.protocol import home
from punchin.protocol.errors import Refused
from punchin.protocol.link import Ready
from punchin.protocol.models import BY_NAME

GIB = 2**30


def install(*names):
    for name in names:
        folder = home.models() / BY_NAME[name].folder
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"")


def there(device, total_bytes, weight_bytes=2):
    return Ready(pid=1, device=device, total_bytes=total_bytes, weight_bytes=weight_bytes)


@pytest.mark.parametrize(
    ("installed", "device", "total_bytes", "chosen"),
    [
        ([], "cuda:0", 24 * GIB, "punchin-tiny"),
        (["turbo"], "cuda:0", 24 * GIB, "turbo"),
        (["turbo", "xl-turbo", "base"], "cuda:0", 24 * GIB, "xl-turbo"),
        (["turbo", "xl-turbo"], "cuda:0", 8 * GIB, "turbo"),
        (["turbo", "xl-sft"], "cuda:0", 24 * GIB, "turbo"),  # turbo before larger
        (["base"], "cuda:0", 24 * GIB, "base"),
        (["turbo", "xl-turbo"], "cuda:0", 3 * GIB, "turbo"),  # its parts take turns
        (["xl-turbo"], "cuda:0", 4 * GIB, "xl-turbo"),
        (["turbo"], "cuda:0", 1 * GIB, "punchin-tiny"),
        (["turbo"], "cpu", 8 * GIB, "punchin-tiny"),
        (["turbo"], "cpu", 32 * GIB, "turbo"),
        (["turbo"], "", 0, "turbo"),  # the worker could not tell
    ],
)
def test_the_largest_that_fits_turbo_first(installed, device, total_bytes, chosen):
    install(*installed)
    assert choice.choose(there(device, total_bytes), "repaint") == chosen


def test_a_cpu_that_needs_float32_needs_twice_the_room():
    install("turbo")
    assert choice.choose(there("cpu", 16 * GIB), "repaint") == "turbo"
    assert choice.choose(there("cpu", 16 * GIB, weight_bytes=4), "repaint") == "punchin-tiny"
    assert choice.choose(there("cpu", 32 * GIB, weight_bytes=4), "repaint") == "turbo"
    assert choice.choose(None, "repaint") == "turbo", "before a worker has told"


def test_a_task_that_only_base_models_know_gets_one():
    assert choice.choose(there("cuda:0", 24 * GIB), "lego") == "punchin-tiny"
    install("turbo", "xl-turbo", "sft")
    assert choice.choose(there("cuda:0", 24 * GIB), "lego") == "punchin-tiny"
    install("base")
    assert choice.choose(there("cuda:0", 24 * GIB), "extract") == "base"
    assert choice.choose(there("cuda:0", 24 * GIB), "cover") == "xl-turbo"
    choice.check("base", "lego")
    with pytest.raises(Refused, match=r"turbo does not know lego \(layer\); only base models do") as error:
        choice.check("turbo", "lego")
    assert (error.value.code, error.value.hint) == ("task", "`punchin models pull base`, then `--model base`")


def test_a_folder_without_weights_is_no_model():
    install("turbo")
    (home.models() / BY_NAME["turbo"].folder / "model.safetensors").unlink()
    assert choice.choose(there("cuda:0", 24 * GIB), "cover") == "punchin-tiny"
    with pytest.raises(Refused, match="model turbo is not installed") as error:
        choice.check("turbo", "cover")
    assert (error.value.code, error.value.hint) == ("model_missing", "punchin models pull turbo")


def fetched(name):
    """What the refusal of a model that is not here says would be fetched."""
    with pytest.raises(Refused, match=f"model {name} is not installed") as error:
        choice.check(name, "cover")
    return str(error.value).partition("(")[2].rstrip(")")


def test_what_is_not_installed_says_what_would_be_fetched_shared_parts_too():
    """The sizes are the hub's: 4.79 GB a 2B, 9.97 GB an XL, 1.19 GB the text encoder, 0.34 GB the VAE."""
    assert [fetched(name) for name in ("turbo", "base", "xl-sft")] == ["6.3 GB", "6.3 GB", "11.5 GB"]
    for part in ("vae", "Qwen3-Embedding-0.6B"):
        folder = home.models() / "Ace-Step1.5" / part
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        assert fetched("base") == ("6.3 GB" if part == "vae" else "6.0 GB"), "a folder without weights is none"
        (folder / "model.safetensors").write_bytes(b"")
    assert [fetched(name) for name in ("turbo", "base", "xl-sft")] == ["4.8 GB", "4.8 GB", "10.0 GB"]


def test_shared_parts_beside_the_models_serve_all_but_turbo_whose_repository_has_its_own():
    for part in ("vae", "Qwen3-Embedding-0.6B"):
        folder = home.models() / part
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"")
    assert [fetched(name) for name in ("turbo", "base")] == ["6.3 GB", "4.8 GB"]


def test_what_is_asked_for_by_name():
    for name in ("", "identity", "punchin-tiny"):
        choice.check(name, "cover")
    with pytest.raises(Refused, match="turbo-shift1") as error:
        choice.check("tubro", "cover")
    assert error.value.code == "unknown_model"
