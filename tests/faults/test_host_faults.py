"""Effects that crash, hang and lie, and clients that do: real processes, and the dry audio always comes back."""

import functools
import hashlib
import io
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from typing import ClassVar

import badgain
import numpy as np
import psutil
import pytest
import soundfile

from punchin.clients import fx
from punchin.clients.journey.returning import ReturnFx
from punchin.protocol import frames, hostlink
from punchin.protocol.errors import OverLimit, PunchinError, Refused

RATE_HZ = 48_000
AUDIO = np.random.default_rng(3).uniform(-0.3, 0.3, (2, RATE_HZ)).astype(np.float32)
LONG = np.tile(AUDIO, 60)  # a minute: seconds of work for PitchShift
SHIFT = '[[effect]]\nname = "Gain"\n[[effect]]\nname = "PitchShift"\nsemitones = 3\n'


def chain(folder, text):
    path = folder / "chain.toml"
    path.write_text(text)
    return path


OTHERS = set()  # children from before a test: libraries keep some, as multiprocessing its tracker


@pytest.fixture(autouse=True)
def others():
    OTHERS.clear()
    OTHERS.update(children())


def children():
    """Process ids of our own children that still run, without those of others."""
    return [child.pid for child in psutil.Process().children() if child.pid not in OTHERS]


def command(reply_code):
    """A plugin host that says what the code writes to `out`, and no more."""
    code = (
        "import os, sys, time; from punchin.protocol import frames, hostlink; from punchin.protocol.hostlink import *\n"
    )
    code += (
        "out = sys.stdout.buffer; hostlink.write(out, Ready(pid=1)); ask = hostlink.read_request(sys.stdin.buffer)\n"
    )
    return shlex.join([sys.executable, "-c", code + reply_code])


def test_kill_in_the_middle_of_work(tmp_path):
    killed = []

    def told(words):
        if words == "PitchShift (2 of 2): process":
            (host,) = children()
            os.kill(host, signal.SIGKILL)
            killed.append(host)

    with pytest.raises(fx.EffectFailed, match=r"effect PitchShift \(2 of 2\): .*killed by SIGKILL") as caught:
        fx.apply(chain(tmp_path, SHIFT), LONG, RATE_HZ, told=told)
    assert killed
    assert caught.value.dry is LONG
    assert caught.value.effect == "PitchShift (2 of 2)"
    assert caught.value.exit_code == 1
    assert children() == []


def test_an_effect_that_takes_too_long(tmp_path, monkeypatch):
    hangs = "hostlink.write(out, Working(effect='X (1 of 1)', doing='process')); time.sleep(60)"
    monkeypatch.setenv("PUNCHIN_PLUGIN_HOST", command(hangs))
    began = time.monotonic()
    with pytest.raises(fx.EffectHung, match=r"effect X \(1 of 1\): no answer within 5 s") as caught:
        fx.apply(chain(tmp_path, SHIFT), AUDIO, RATE_HZ, timeout_s=2)
    assert caught.value.dry is AUDIO
    assert "try again" not in caught.value.hint
    assert time.monotonic() - began > 5, "three times the audio's second more than it may take to load"
    assert children() == []


@pytest.mark.real
@pytest.mark.parametrize(
    ("mode", "says"),
    [(1, "killed by SIGSEGV"), (2, "no answer within 7 s"), (3, "96000 samples it made are not numbers")],
)
def test_bad_plugins(mode, says, tmp_path, plugin):
    text = f'[[effect]]\nname = "Gain"\n[[effect]]\nvst3 = "{plugin}"\nmode = {mode}\n'
    with pytest.raises(fx.EffectFailed, match=rf"effect BadGain \(2 of 2\): .*{says}") as caught:
        fx.apply(chain(tmp_path, text), AUDIO, RATE_HZ, timeout_s=4)
    assert caught.value.dry is AUDIO
    assert children() == []


@pytest.mark.real
def test_a_plugin_that_aborts_while_loading(tmp_path, plugin, monkeypatch):
    monkeypatch.setenv("BADGAIN_ABORT", "1")
    with pytest.raises(fx.EffectFailed, match=r"effect BadGain \(1 of 1\): .*killed by SIGABRT") as caught:
        fx.check(chain(tmp_path, f'[[effect]]\nvst3 = "{plugin}"\n'))
    assert caught.value.dry is None


@pytest.mark.real
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("gain = 5", "BadGain gain is 5, allowed is 0 to 2"),
        ("gain = nan", "BadGain gain is nan, allowed is 0 to 2"),
        ("gain = true", "BadGain gain is True, allowed is 0 to 2"),
        ("mood = 1", 'no parameter "mood"; it has .*gain: 0 to 2'),
    ],
)
def test_wrong_values_for_a_plugin(line, says, tmp_path, plugin):
    with pytest.raises(Refused, match=says):
        fx.check(chain(tmp_path, f'[[effect]]\nvst3 = "{plugin}"\n{line}\n'))


@pytest.mark.real
def test_a_plugin_by_its_name_in_the_file(tmp_path, plugin):
    text = f'[[effect]]\nvst3 = "{plugin}"\nname = "%s"\ngain = 0.5\n'
    heard = fx.apply(chain(tmp_path, text % "BadGain"), AUDIO, RATE_HZ)
    np.testing.assert_allclose(heard, AUDIO / 2, atol=1e-6)
    with pytest.raises(Refused, match=r'GoodGain \(1 of 1\) at .*: no plug-in "GoodGain"; it has "BadGain"'):
        fx.check(chain(tmp_path, text % "GoodGain"))


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    return badgain.build(tmp_path_factory.mktemp("plugin"))


def test_what_is_no_plugin(tmp_path):
    (tmp_path / "text.vst3").write_text("not a plug-in")
    with pytest.raises(fx.EffectFailed, match=r"effect text \(1 of 1\): Failed to load plugin") as caught:
        fx.apply(chain(tmp_path, '[[effect]]\nvst3 = "text.vst3"\n'), AUDIO, RATE_HZ)
    assert caught.value.dry is AUDIO


def test_what_is_no_impulse_response(tmp_path):
    (tmp_path / "room.wav").write_text("not audio")
    text = '[[effect]]\nname = "Convolution"\nimpulse_response_filename = "room.wav"\n'
    with pytest.raises(fx.EffectFailed, match="does not seem to contain audio"):
        fx.check(chain(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[effect]]\nname = "Revreb"', 'no effect "Revreb"; there are Bitcrush'),
        ('[[effect]]\nname = "LowpassFilter"\ncutoff_frequency_hz = 24000', "at 48000 Hz allowed is under 24000"),
        ("[[effect", "is not TOML"),
    ],
)
def test_wrong_chains_are_refused(text, says, tmp_path):
    with pytest.raises(Refused, match=says) as caught:
        fx.apply(chain(tmp_path, text), AUDIO, RATE_HZ)
    assert str(tmp_path / "chain.toml") in str(caught.value)


def test_chain_files_that_cannot_be_read(tmp_path):
    with pytest.raises(Refused, match="No such file"):
        fx.check(tmp_path / "none.toml")
    with pytest.raises(Refused, match="Is a directory"):
        fx.check(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9")
    with pytest.raises(Refused, match=r"is not UTF-8 text: .* at byte 5"):
        fx.check(tmp_path / "latin.toml")
    (tmp_path / "big.toml").write_text("#" * (hostlink.MAX_CHAIN_BYTES + 1))
    with pytest.raises(Refused, match="has 65537 bytes, a chain may have 65536"):
        fx.check(tmp_path / "big.toml")


def test_more_than_two_channels_are_refused(tmp_path):
    with pytest.raises(OverLimit, match="channels is 8, allowed is 1 to 2"):  # Reverb would pass all eight as they are
        fx.apply(chain(tmp_path, '[[effect]]\nname = "Reverb"\n'), np.tile(AUDIO, (4, 1)), RATE_HZ)


@pytest.mark.parametrize(
    ("shape", "says"), [((500, 4), "channels is 4, allowed is 1 to 2"), ((0, 1), "holds no audio")]
)
def test_impulse_responses_that_would_not_be_heard(shape, says, tmp_path):
    soundfile.write(tmp_path / "room.wav", np.zeros(shape), RATE_HZ)
    with pytest.raises(Refused, match=says):
        fx.check(chain(tmp_path, '[[effect]]\nname = "Convolution"\nimpulse_response_filename = "room.wav"\n'))


def test_a_chain_is_checked_for_a_rate(tmp_path):
    high = chain(tmp_path, '[[effect]]\nname = "LowpassFilter"\ncutoff_frequency_hz = 24000\n')
    assert fx.check(high) == fx.check(high, 96_000) == ("LowpassFilter (1 of 1)",)
    with pytest.raises(Refused, match="at 48000 Hz allowed is under 24000"):
        fx.check(high, RATE_HZ)


@pytest.mark.parametrize("room", [50_000, AUDIO.nbytes - 1])
def test_no_room_for_the_audio_is_said(room, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(fx.EffectFailed, match=r"^the audio could not be handed over: File too large") as caught:
            fx.apply(chain(tmp_path, ""), AUDIO, RATE_HZ)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.hint == "free some space in the temporary folder"


def test_a_disk_that_is_full_on_the_way_back(tmp_path):
    AUDIO.tofile(tmp_path / "dry.f32")
    reply = answer(dry=str(tmp_path / "dry.f32"), wet="/dev/full", frames=AUDIO.shape[1])
    assert reply == hostlink.Failed(
        effect="",
        text="the audio could not be handed over: No space left on device",
        hint="free some space in the temporary folder",
    )


def test_a_bug_of_the_host_is_named(tmp_path, monkeypatch):
    code = "import punchin.plugin_host.serve as s; s.read_chain = lambda *_: 1 // 0; s.serve()"
    monkeypatch.setenv("PUNCHIN_PLUGIN_HOST", shlex.join([sys.executable, "-c", code]))
    with pytest.raises(fx.EffectFailed, match=r"^bug in punchin \(ZeroDivisionError: ") as caught:
        fx.apply(chain(tmp_path, ""), AUDIO, RATE_HZ)
    assert caught.value.hint == "punchin doctor"


def test_playing_ends_with_who_listens(monkeypatch):
    class Gone(io.StringIO):
        def writelines(self, lines):
            next(iter(lines))
            raise KeyboardInterrupt

    code = "import time; print('a', flush=True); time.sleep(60)"
    monkeypatch.setenv("PUNCHIN_PLUGIN_HOST", shlex.join([sys.executable, "-c", code]))
    with pytest.raises(KeyboardInterrupt):
        fx.run_host(["-"], Gone())
    assert children() == []


@pytest.mark.parametrize("bad", [AUDIO[0], AUDIO[:, :0], AUDIO.astype(np.float64), AUDIO * np.float32(np.nan)])
def test_audio_that_is_none(bad, tmp_path):
    with pytest.raises(Refused):
        fx.apply(chain(tmp_path, ""), bad, RATE_HZ)


@pytest.mark.parametrize(
    ("lies", "says"),
    [
        ("out.write(b'\\xff' * 64)", "a frame of 4294967295 bytes"),
        ("frames.write(out, b'\\x93')", "what is no reply"),
        ("frames.write(out, b'\\x82\\xa4type\\xa4done\\xa1x' + b'\\x91' * 100_000)", "nested too deep"),
        ("hostlink.write(out, Ready(pid=2))", "where an answer was due"),
        ("hostlink.write(out, Done(effects=()))", "left 0 bytes, expected are 384000"),
        ("open(ask.target, 'wb').write(b'x'); hostlink.write(out, Done(effects=()))", "left 1 bytes"),
        ("open(ask.target, 'wb').write(b'\\xff' * 384000); hostlink.write(out, Done(effects=()))", "not numbers"),
        ("hostlink.write(out, Working(effect='X', doing='load')); sys.exit('no space')", "X: .*exit code 1.*no space"),
        ("out.close(); os.close(1); time.sleep(60)", "closed its pipe but went on"),
        ("out.write(b'\\0\\0'); out.flush(); time.sleep(60)", "no answer within 2 s"),
    ],
)
def test_a_host_that_lies(lies, says, tmp_path, monkeypatch):
    monkeypatch.setenv("PUNCHIN_PLUGIN_HOST", command(lies))
    with pytest.raises(fx.EffectFailed, match=says) as caught:
        fx.apply(chain(tmp_path, ""), AUDIO, RATE_HZ, timeout_s=2)
    assert caught.value.dry is AUDIO
    assert children() == []


def test_a_host_that_ends_before_it_reads(tmp_path, monkeypatch):
    code = "import os, sys; from punchin.protocol import hostlink; "
    code += "os.close(0); hostlink.write(sys.stdout.buffer, hostlink.Ready(pid=1)); os._exit(9)"
    monkeypatch.setenv("PUNCHIN_PLUGIN_HOST", shlex.join([sys.executable, "-c", code]))
    with pytest.raises(fx.EffectFailed, match="ended unasked"):
        fx.check(chain(tmp_path, SHIFT))
    with pytest.raises(fx.EffectFailed, match="ended unasked"):
        fx.apply(chain(tmp_path, SHIFT), AUDIO, RATE_HZ)
    command = [sys.executable, "-m", "punchin.clients.cli", "fx", "check", tmp_path / "chain.toml"]
    assert subprocess.run(command, check=False).returncode == 1


def test_a_return_chain_that_hung_is_not_waited_for_again(tmp_path, monkeypatch):
    class Listener:
        said: ClassVar[list[str]] = []

        def say(self, text):
            self.said.append(text)

        warn = say

    monkeypatch.setenv("PUNCHIN_PLUGIN_HOST", command("time.sleep(60)"))
    monkeypatch.setattr(fx, "apply", functools.partial(fx.apply, timeout_s=2))
    effects = ReturnFx(chain(tmp_path, SHIFT), Listener())
    made = [effects(AUDIO) for _ in range(3)]
    assert all(audio is AUDIO for audio, _ in made)
    assert {failed for _, failed in made} == {"chain.toml: no answer within 2 s; the plugin host was ended"}
    assert len(Listener.said) == 2
    assert Listener.said[1].endswith("; all takes land without chain.toml")
    assert children() == []


def test_the_digest_of_a_chain_holds_what_it_names(tmp_path):
    plain, named = chain(tmp_path, SHIFT), tmp_path / "room.toml"
    assert fx.digest(plain) == hashlib.sha256(SHIFT.encode()).hexdigest()
    named.write_text('[[effect]]\nname = "Convolution"\nimpulse_response_filename = "room.wav"\n')
    digests = {fx.digest(named)}
    for level in (0.1, 0.2):
        soundfile.write(tmp_path / "room.wav", AUDIO.T * level, RATE_HZ)
        digests.add(fx.digest(named))
    named.write_text('[[effect]]\nvst3 = "a.vst3"\n')
    (tmp_path / "a.vst3" / "Contents").mkdir(parents=True)
    (tmp_path / "a.vst3" / "Contents" / "link").symlink_to("/nowhere")
    for size in (10, 20):
        (tmp_path / "a.vst3" / "Contents" / "a.so").write_bytes(bytes(size))
        digests.add(fx.digest(named))
    assert len(digests) == 5
    assert fx.digest(chain(tmp_path, "effect = 3")) == hashlib.sha256(b"effect = 3").hexdigest()


def test_a_host_that_cannot_start(tmp_path, monkeypatch):
    monkeypatch.setenv("PUNCHIN_PLUGIN_HOST", str(tmp_path / "gone"))
    with pytest.raises(fx.EffectFailed, match="cannot be started: No such file"):
        fx.apply(chain(tmp_path, ""), AUDIO, RATE_HZ)


def host(data):
    """A real plugin host that reads these bytes. Gives exit code, stdout and stderr."""
    command = [sys.executable, "-m", "punchin.plugin_host"]
    done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 100,
        b"\0\0\0\1\xc1",
        b"\0\0\0\0",
        b"\0\0\0\5hello",
        b"\0\0\0\x0c\x81\xa4type\xa5apply",
        (100_014).to_bytes(4, "big") + b"\x82\xa4type\xa5check\xa1x" + b"\x91" * 100_001,
    ],
)
def test_a_client_that_sends_nonsense(data):
    code, out, err = host(data)
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("error: what came is no request")
    assert b"ready" in out


@pytest.mark.parametrize("data", [b"", b"\0\0", b"\0\0\0\x09half"])
def test_a_client_that_goes_away(data):
    code, _, err = host(data)
    assert (code, err) == (0, "")


def test_a_host_ends_with_its_client_even_in_the_middle_of_work(tmp_path):
    LONG.tofile(tmp_path / "dry.f32")
    process = subprocess.Popen(
        [sys.executable, "-m", "punchin.plugin_host"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert isinstance(hostlink.read_reply(process.stdout), hostlink.Ready)
        request = hostlink.Apply(
            chain=SHIFT,
            folder=str(tmp_path),
            source=str(tmp_path / "dry.f32"),
            target=str(tmp_path / "wet.f32"),
            channels=2,
            frames=LONG.shape[1],
            rate_hz=RATE_HZ,
        )
        hostlink.write(process.stdin, request)
        while hostlink.read_reply(process.stdout) != hostlink.Working(effect="PitchShift (2 of 2)", doing="process"):
            pass
        process.stdin.close()
        try:
            assert process.wait(timeout=5) == 0
        finally:
            process.kill()  # so that a failure does not hang here
    assert not (tmp_path / "wet.f32").exists()


def answer(dry, wet, frames):
    """What a real plugin host says to stereo audio and an empty chain."""
    command = [sys.executable, "-m", "punchin.plugin_host"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        ask = hostlink.Apply(chain="", folder="/", source=dry, target=wet, channels=2, frames=frames, rate_hz=RATE_HZ)
        hostlink.write(process.stdin, ask)
        assert isinstance(hostlink.read_reply(process.stdout), hostlink.Ready)
        reply = hostlink.read_reply(process.stdout)
        process.stdin.close()
    return reply


def test_missing_and_short_audio_files(tmp_path):
    (tmp_path / "short.f32").write_bytes(b"1234")
    for name, says in (("none.f32", "No such file"), ("short.f32", "has 1 samples, the request says 2 x 5")):
        reply = answer(dry=str(tmp_path / name), wet=str(tmp_path / "wet.f32"), frames=5)
        assert isinstance(reply, hostlink.Failed)
        assert says in reply.text


def test_play_without_a_device_says_so(tmp_path):
    soundfile.write(tmp_path / "a.wav", AUDIO.T, RATE_HZ)
    (tmp_path / "b.wav").write_text("not audio")
    soundfile.write(tmp_path / "six.wav", np.zeros((100, 6)), RATE_HZ)
    for name, code, says in (
        ("a.wav", 4, "no audio output device"),
        ("b.wav", 4, "cannot be read as audio"),
        ("c.wav", 2, "no file at"),
        ("six.wav", 4, "channels is 6, allowed is 1 to 2"),
    ):
        command = [sys.executable, "-m", "punchin.plugin_host", "play", tmp_path / name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if name == "a.wav" and done.returncode == 0:
            continue  # this machine has a device, and one second of noise was heard
        assert (done.returncode, says in done.stderr, "Traceback" in done.stderr) == (code, True, False)


def test_errors_are_ours():
    assert issubclass(fx.EffectFailed, PunchinError)
    assert frames.MAX_FRAME_BYTES > hostlink.MAX_CHAIN_BYTES


def test_an_apply_that_is_ended_leaves_no_audio_behind(tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    soundfile.write(tmp_path / "in.wav", AUDIO.T, RATE_HZ, subtype="FLOAT")
    deaf = shlex.join([sys.executable, "-c", "import sys; sys.stdin.read()"])
    words = ["fx", "apply", chain(tmp_path, SHIFT), tmp_path / "in.wav", "-o", tmp_path / "out.wav"]
    process = subprocess.Popen(
        [sys.executable, "-m", "punchin.clients.cli", *words],
        env=os.environ | {"TMPDIR": str(temporary), "PUNCHIN_PLUGIN_HOST": deaf},
    )
    try:
        while not list(temporary.glob("punchin-fx-*/dry.f32")):
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    assert list(temporary.iterdir()) == []
