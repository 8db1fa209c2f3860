"""What the plugin host makes of audio, against pedalboard called directly. Real processes throughout."""

import badgain
import numpy as np
import pedalboard
import pytest
import soundfile
from realparts import need_file

from punchin.clients import fx
from punchin.plugin_host.effects import EFFECTS
from punchin.plugin_host.play import play
from punchin.protocol.errors import PunchinError

RATE_HZ = 48_000
FRAMES = 30_011  # prime: no block divides it


def noise(channels, frames=FRAMES):
    return np.random.default_rng(7).uniform(-0.3, 0.3, (channels, frames)).astype(np.float32)


def chain(folder, text):
    path = folder / "chain.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("effect", sorted(EFFECTS))
def test_each_effect_is_pedalboards(effect, tmp_path):
    values, text = {}, f'[[effect]]\nname = "{effect}"\n'
    if effect == "Convolution":
        soundfile.write(tmp_path / "room.wav", np.exp(-np.arange(500) / 90), RATE_HZ, subtype="FLOAT")
        values = {"impulse_response_filename": str(tmp_path / "room.wav")}
        text += 'impulse_response_filename = "room.wav"\n'
    audio = noise(2)
    made = fx.apply(chain(tmp_path, text), audio, RATE_HZ)
    expected = getattr(pedalboard, effect)(**values)(audio, RATE_HZ)
    assert (made.shape, made.dtype) == (audio.shape, np.float32)
    np.testing.assert_array_equal(made, expected)


def test_values_reach_the_effect(tmp_path):
    text = '[[effect]]\nname = "LadderFilter"\nmode = "HPF24"\ncutoff_hz = 900\n'
    expected = pedalboard.LadderFilter(pedalboard.LadderFilter.Mode.HPF24, cutoff_hz=900)(noise(1), RATE_HZ)
    np.testing.assert_array_equal(fx.apply(chain(tmp_path, text), noise(1), RATE_HZ), expected)


def test_two_effects_are_pedalboards_chain(tmp_path):
    text = (
        '[[effect]]\nname = "Reverb"\nroom_size = 0.3\n[[effect]]\nname = "Compressor"\nthreshold_db = -30\nratio = 4\n'
    )
    board = pedalboard.Pedalboard([pedalboard.Reverb(room_size=0.3), pedalboard.Compressor(-30, 4)])
    np.testing.assert_array_equal(fx.apply(chain(tmp_path, text), noise(2), RATE_HZ), board(noise(2), RATE_HZ))


@pytest.mark.parametrize("frames", [1, 63, 8_191, 8_193])
def test_any_length_comes_back_with_its_place(frames, tmp_path):
    text = '[[effect]]\nname = "PitchShift"\n[[effect]]\nname = "BrickwallLimiter"\n[[effect]]\nname = "Invert"\n'
    audio = noise(2, frames)
    made = fx.apply(chain(tmp_path, text), audio, 44_100)
    np.testing.assert_allclose(made, -audio, rtol=0, atol=1e-5)


def test_an_empty_chain_is_bit_exact(tmp_path):
    audio = noise(2)
    audio[0, :4] = [-0.0, 1e-42, 3e38, np.float32(1) / 3]  # a denormal and a huge one pass too
    made = fx.apply(chain(tmp_path, ""), audio, RATE_HZ)
    assert made.tobytes() == audio.tobytes()
    assert made is not audio


def test_channels_may_lie_anyhow_in_memory(tmp_path):
    audio = np.ascontiguousarray(noise(2).T).T[:, ::2]
    assert fx.apply(chain(tmp_path, ""), audio, RATE_HZ).tobytes() == np.ascontiguousarray(audio).tobytes()


def test_the_way_is_told(tmp_path):
    told = []
    fx.apply(chain(tmp_path, '[[effect]]\nname = "Gain"\n'), noise(1), RATE_HZ, told=told.append)
    assert told == ["Gain (1 of 1): load", "Gain (1 of 1): process"]


@pytest.mark.real
def test_a_plugin_keeps_places_despite_its_latency(tmp_path):
    badgain.build(tmp_path)
    made = fx.apply(chain(tmp_path, '[[effect]]\nvst3 = "BadGain.vst3"\ngain = 0.5\n'), noise(2), RATE_HZ)
    np.testing.assert_array_equal(made, noise(2) / 2)  # it reports 64 samples: the first and the last are in place


@pytest.mark.real
@pytest.mark.parametrize(
    ("values", "gain"),
    [
        ('current_program = "quiet"', 0.25),
        ('gain = 0.5\ncurrent_program = "quiet"', 0.5),
        ('current_program = "quiet"\ngain = 0.5', 0.5),
        ('current_program = "quiet"\nmode = 0', 0.25),
    ],
)
def test_a_plugins_program_sounds_and_moves_nothing_that_is_named(tmp_path, values, gain):
    badgain.build(tmp_path)
    made = fx.apply(chain(tmp_path, f'[[effect]]\nvst3 = "BadGain.vst3"\n{values}\n'), noise(2), RATE_HZ)
    np.testing.assert_array_equal(made, noise(2) * np.float32(gain))


@pytest.mark.real
def test_a_program_of_a_plugin_of_others_sounds(tmp_path):
    """Of an equaliser whose sound hears only of values that change, not of a program: +6 dB at 60 Hz, -6 dB in all."""
    made = "x86_64-linux/ZamEQ2.so"
    need_file(f"/usr/lib/vst3/ZamEQ2.vst3/Contents/{made}", "apt-get install zam-plugins")
    text = '[[effect]]\nvst3 = "/usr/lib/vst3/ZamEQ2.vst3"\n'
    plain, program, louder = (
        fx.apply(chain(tmp_path, text + values), noise(1), RATE_HZ)
        for values in ("", 'current_program = "CarvedBass"', 'master_gain_db = 0\ncurrent_program = "CarvedBass"')
    )
    assert 20 * np.log10(plain.std() / program.std()) == pytest.approx(6, abs=0.2)
    named = 'current_program = "CarvedBass"\nmaster_gain_db = -6'  # which it has by then
    np.testing.assert_allclose(fx.apply(chain(tmp_path, text + named), noise(1), RATE_HZ), program, atol=2e-4)
    np.testing.assert_allclose(louder, program * 10 ** (6 / 20), atol=2e-3)
    bass = np.abs(np.fft.rfft(np.stack([plain[0], louder[0]])))[:, 5:60]  # 8 to 95 Hz
    assert 20 * np.log10(bass[1].mean() / bass[0].mean()) == pytest.approx(4.1, abs=0.5)


@pytest.mark.real
def test_a_mono_plugin_takes_each_side(tmp_path):
    badgain.build(tmp_path, sides=1)
    made = fx.apply(chain(tmp_path, '[[effect]]\nvst3 = "BadGain.vst3"\ngain = 0.5\n'), noise(2), RATE_HZ)
    np.testing.assert_array_equal(made, noise(2) / 2)


@pytest.mark.real
def test_a_stereo_plugin_refuses_mono(tmp_path):
    badgain.build(tmp_path)
    with pytest.raises(fx.EffectFailed, match=r"BadGain \(1 of 1\): .*does not support 1-channel"):
        fx.apply(chain(tmp_path, '[[effect]]\nvst3 = "BadGain.vst3"\n'), noise(1), RATE_HZ)


class Speaker:
    """An output device, which no machine of the tests has: two channels, at its own rate alone."""

    sample_rate = RATE_HZ
    output_device_names = ("Speaker",)
    default_output_device_name = "Speaker"
    heard: list

    def __init__(self, output_device_name, sample_rate):
        assert output_device_name == "Speaker"
        Speaker.heard = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write(self, audio, rate_hz):
        if len(audio) != 2 or rate_hz != self.sample_rate:
            raise RuntimeError(f"{len(audio)} channels at {rate_hz} Hz")
        Speaker.heard.append(audio)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate_hz", [RATE_HZ, 44_100])
def test_a_file_is_played_to_its_last_sample(channels, rate_hz, tmp_path, monkeypatch):
    monkeypatch.setattr(pedalboard.io, "AudioStream", Speaker)
    audio = noise(channels)
    soundfile.write(tmp_path / "a.wav", audio.T, rate_hz, subtype="FLOAT")
    play(tmp_path / "a.wav")
    heard = np.concatenate(Speaker.heard, axis=1)
    assert heard.shape[1] == pytest.approx(FRAMES * RATE_HZ / rate_hz, abs=2)
    if rate_hz == RATE_HZ:
        np.testing.assert_array_equal(heard, np.broadcast_to(audio, (2, FRAMES)))


def test_a_device_that_goes_away_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(pedalboard.io, "AudioStream", Speaker)
    monkeypatch.setattr(Speaker, "write", lambda *_: (_ for _ in ()).throw(RuntimeError("unplugged")))
    soundfile.write(tmp_path / "a.wav", noise(2).T, RATE_HZ)
    with pytest.raises(PunchinError, match=r"playing a\.wav stopped: unplugged"):
        play(tmp_path / "a.wav")
