"""The table of effects against pedalboard's own signatures, and chains read from TOML."""

import re
import subprocess
import sys

import pedalboard
import pytest

from punchin.plugin_host.chain import read_chain
from punchin.plugin_host.effects import EFFECTS, Choice, File, Number, Switch
from punchin.protocol.errors import OverLimit, Refused

NOT_EFFECTS = {  # what pedalboard has beside: bases, containers, plug-ins, and a filter with no way to set it
    "Plugin", "PluginContainer", "Chain", "Mix", "Pedalboard",
    "ExternalPlugin", "VST3Plugin", "AudioUnitPlugin", "IIRFilter",
}  # fmt: skip


def signature(name):
    first = getattr(pedalboard, name).__init__.__doc__.splitlines()[0]
    return re.findall(r"(\w+): (.+?)(?: = ([^,)]+))?(?=, \w+: |\) -> )", first.partition(", ")[2] or "")


def test_no_effect_is_missing():
    there = {
        name
        for name, kind in vars(pedalboard).items()
        if not name.startswith("_") and isinstance(kind, type) and issubclass(kind, pedalboard.Plugin)
    }
    assert there - NOT_EFFECTS == set(EFFECTS)


@pytest.mark.parametrize("effect", sorted(set(EFFECTS) - {"Convolution"}))
def test_names_and_defaults_are_pedalboards(effect):
    found = {name: default for name, _, default in signature(effect)}
    assert set(found) == set(EFFECTS[effect])
    for name, parameter in EFFECTS[effect].items():
        if isinstance(parameter, Choice):
            assert f".{parameter.default}:" in found[name]
            kind = getattr(getattr(pedalboard, parameter.kind.split(".")[0]), parameter.kind.split(".")[1])
            assert set(parameter.words) == set(kind.__members__)
        elif isinstance(parameter, Switch):
            assert found[name] == str(parameter.default)
        else:
            assert float(found[name]) == parameter.default


@pytest.mark.parametrize("effect", sorted(set(EFFECTS) - {"Convolution"}))
def test_pedalboard_takes_both_ends_of_each_range(effect):
    for name, parameter in EFFECTS[effect].items():
        if isinstance(parameter, Number):
            for value in (parameter.low, parameter.high):
                made = getattr(pedalboard, effect)(**{name: value})
                assert getattr(made, name) == pytest.approx(value, rel=1e-5)


def test_convolution_takes_a_file_and_a_mix():
    assert isinstance(EFFECTS["Convolution"]["impulse_response_filename"], File)
    assert EFFECTS["Convolution"]["mix"].default == 1


def test_a_chain_keeps_its_order(tmp_path):
    steps = read_chain('[[effect]]\nname = "Reverb"\nroom_size = 0.25\n[[effect]]\nname = "Invert"', tmp_path)
    assert [step.label for step in steps] == ["Reverb (1 of 2)", "Invert (2 of 2)"]
    assert steps[0].values == {"room_size": 0.25}


@pytest.mark.parametrize("text", ["", "# nothing", "effect = []"])
def test_empty_chains(text, tmp_path):
    assert read_chain(text, tmp_path) == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[effect]", "the chain is not TOML"),
        ('[effect]\nname = "Gain"', "effect is one table"),
        ("effect = [1]", "effect is one table"),
        ("effects = []", 'here is "effects"'),
        ("[[effect]]\ngain_db = 1", "effect 1 of 1 has no name"),
        ('[[effect]]\nname = "Gain"\n[[effect]]\nname = 7', "effect 2 of 2 has no name"),
        ('[[effect]]\nname = 3\nvst3 = "x"', "name is 3, allowed is the name of a plug-in in x"),
        ('[[effect]]\nvst3 = "gone.vst3"', "no plug-in at "),
        ("[[effect]]\nvst3 = 3", "vst3 is 3"),
        ('[[effect]]\nname = "Chain"', 'no effect "Chain"; there are Bitcrush, '),
        ('[[effect]]\nname = "Gain"\ngain = 1', 'Gain has no parameter "gain"; it has gain_db: -120 to 60 dB [1]'),
        ('[[effect]]\nname = "Invert"\ngain = 1', 'Invert has no parameter "gain"; it has none'),
        ('[[effect]]\nname = "Gain"\ngain_db = "loud"', "Gain gain_db is 'loud', allowed is -120 to 60 dB [1]"),
        ('[[effect]]\nname = "Gain"\ngain_db = true', "Gain gain_db is True"),
        ('[[effect]]\nname = "BrickwallLimiter"\ntrue_peak = 1', "true_peak is 1, allowed is true or false [false]"),
        ('[[effect]]\nname = "LadderFilter"\nmode = "LPF13"', "mode is 'LPF13', allowed is LPF12, HPF12"),
        ('[[effect]]\nname = "Convolution"', "Convolution needs impulse_response_filename"),
        ('[[effect]]\nname = "Convolution"\nimpulse_response_filename = "no.wav"', "no file at "),
        ('[[effect]]\nname = "Convolution"\nimpulse_response_filename = "~nobody-here/a.wav"', "no file at "),
        (f'[[effect]]\nname = "Convolution"\nimpulse_response_filename = "{"a" * 5000}"', "no file at "),
        ('[[effect]]\nvst3 = "~nobody-here/a.vst3"', "no plug-in at "),
        (f'[[effect]]\nvst3 = "{"a" * 5000}"', "no plug-in at "),
        (f'[[effect]]\nname = "Gain"\ngain_db = 1{"0" * 400}', "Gain gain_db is inf dB, allowed is -120 to 60"),
        (f'[[effect]]\nname = "Gain"\ngain_db = 1{"0" * 5000}', "the chain is not TOML"),
        ("effect = " + "[" * 60_000, "nested too deep"),
        ('[[effect]]\nname = "Invert"\n' * 33, "the chain has 33 effects, allowed is 0 to 32"),
    ],
)
def test_wrong_chains_say_what_is_wrong(text, says, tmp_path):
    with pytest.raises(Refused, match=re.escape(says)):
        read_chain(text, tmp_path)


@pytest.mark.parametrize("value", ["1.01", "-0.01", "nan", "inf"])
def test_numbers_outside_quote_their_range(value, tmp_path):
    with pytest.raises(OverLimit, match=r"Reverb room_size is .+, allowed is 0 to 1"):
        read_chain(f'[[effect]]\nname = "Reverb"\nroom_size = {value}', tmp_path)


@pytest.mark.parametrize(("wrong", "meant"), [("reverb", "Reverb"), ("Compresor", "Compressor")])
def test_a_slip_of_the_pen_is_understood(wrong, meant, tmp_path):
    with pytest.raises(Refused) as caught:
        read_chain(f'[[effect]]\nname = "{wrong}"', tmp_path)
    assert caught.value.hint == f"did you mean {meant}?"


def test_clients_read_effects_without_pedalboard():
    code = "import sys, punchin.clients.fx; print(sorted({'numpy', 'pedalboard'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
