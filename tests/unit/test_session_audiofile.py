"""Files in, arrays out, and back without a bit lost; what cannot be read or written says so."""

import os
import re
import shutil
import stat
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from punchin.protocol.errors import PunchinError, Refused
from punchin.session import audiofile


@pytest.mark.parametrize(
    ("name", "subtype", "dtype"),
    [
        ("a.wav", "PCM_U8", "int16"),
        ("a.wav", "PCM_16", "int16"),
        ("a.wav", "PCM_24", "int32"),
        ("a.wav", "PCM_32", "int32"),
        ("a.wav", "FLOAT", "float32"),
        ("a.wav", "DOUBLE", "float64"),
        ("a.flac", "PCM_16", "int16"),
        ("a.flac", "PCM_24", "int32"),
        ("a.aiff", "PCM_24", "int32"),
    ],
)
def test_every_bit_survives_reading_and_writing(tmp_path, name, subtype, dtype):
    rng = np.random.default_rng(1)
    samples = rng.uniform(-1, 1, (5000, 2))
    if dtype.startswith("int"):
        info = np.iinfo(dtype)
        samples = rng.integers(info.min, info.max, (5000, 2), dtype=dtype, endpoint=True)
        samples[0] = info.min, info.max
    soundfile.write(tmp_path / name, samples, 44_100, subtype=subtype)
    audio, rate_hz = audiofile.read_exact(tmp_path / name)
    assert (audio.shape, rate_hz) == ((2, 5000), 44_100)
    again = audiofile.write(tmp_path / ("again" + name), audio, rate_hz, subtype)
    first = soundfile.read(tmp_path / name, dtype=dtype)[0]
    assert np.array_equal(first, soundfile.read(again, dtype=dtype)[0])
    assert soundfile.info(again).subtype == subtype


@pytest.mark.parametrize(("subtype", "frames"), [("PCM_16", 5_000), ("PCM_24", 3_333), ("FLOAT", 2_500)])
def test_a_wav_is_one_until_its_own_bytes_are_too_many(tmp_path, monkeypatch, subtype, frames):
    monkeypatch.setattr(audiofile, "WAV_BYTES", 20_000)
    for length, kind in ((frames, "WAV"), (frames + 1, "RF64")):
        path = audiofile.write(tmp_path / "a.wav", np.zeros((2, length), np.float32), 48_000, subtype)
        assert soundfile.info(path).format == kind


def test_a_part_of_a_file(tmp_path):
    samples = np.arange(100, dtype=np.float32) / 100
    soundfile.write(tmp_path / "a.wav", samples, 48_000, subtype="FLOAT")
    assert audiofile.info(tmp_path / "a.wav") == audiofile.AudioInfo(48_000, 1, 100, "WAV", "FLOAT")
    np.testing.assert_array_equal(audiofile.read(tmp_path / "a.wav", 10, 5)[0], samples[None, 10:15])
    assert audiofile.read(tmp_path / "a.wav", 98, 50)[0].shape == (1, 2)
    assert audiofile.read(tmp_path / "a.wav", 500, 5)[0].shape == (1, 0)


def plucks(frames, seed):
    """Four soft plucks a second, [frames, 2]: what compresses well, so that a page of a file holds much of it."""
    rng, out, t = np.random.default_rng(seed), np.zeros((frames, 2)), np.arange(48_000) / 48_000
    for at in range(0, frames, 12_000):
        tone = np.sin(2 * np.pi * 110 * 2 ** (rng.integers(24) / 12) * t) * np.exp(-6 * t)
        out[at : at + 48_000] += 0.05 * tone[: frames - at, None] * rng.uniform(0.5, 1, 2)
    return out


def test_a_part_of_a_vorbis_file_is_the_same_wherever_it_begins(tmp_path, monkeypatch):
    """libsndfile 1.2.2 itself seeks too late in the last page."""
    monkeypatch.setattr(audiofile, "BLOCK_FRAMES", 100_000)
    path = tmp_path / "plucks.ogg"
    soundfile.write(path, plucks(12 * 48_000 + 777, 2), 48_000, "VORBIS", format="OGG", compression_level=0.9)
    whole = audiofile.read(path)[0]
    for start_s in (0.0, 5.0, 10.8, 11.2, 11.5, 11.8, 12.0):
        first = round(start_s * 48_000)
        np.testing.assert_array_equal(audiofile.read_exact(path, first, 24_000)[0], whole[:, first : first + 24_000])


def test_integers_are_rounded_and_clipped_at_full_scale(tmp_path):
    path = audiofile.write(tmp_path / "a.wav", np.array([[2.0, -2.0, 0.6 / 32768, 0.0]]), 48_000, "PCM_16")
    assert soundfile.read(path, dtype="int16")[0].tolist() == [32767, -32768, 1, 0]


def test_what_cannot_be_read_is_refused_with_its_path(tmp_path):
    with pytest.raises(Refused, match=r"missing: .*none\.wav"):
        audiofile.read(tmp_path / "none.wav")
    (tmp_path / "junk.wav").write_bytes(os.urandom(1000))
    with pytest.raises(Refused, match=r"not readable: .*junk\.wav"):
        audiofile.info(tmp_path / "junk.wav")
    with pytest.raises(Refused, match="is a folder, not an audio file"):
        audiofile.info(tmp_path)


def test_a_flac_that_does_not_tell_its_length_is_refused(tmp_path):
    """What an encoder writes into a pipe: STREAMINFO's total of samples, 36 bits from byte 21 on, is 0."""
    path = audiofile.write(tmp_path / "streamed.flac", np.zeros((2, 4_800)), 48_000, "PCM_16")
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    for read in (audiofile.info, audiofile.read):
        with pytest.raises(Refused, match=r"streamed\.flac does not say how long it is"):
            read(path)


def test_what_cannot_be_written_is_refused(tmp_path):
    audio = np.zeros((1, 10), dtype=np.float32)
    with pytest.raises(Refused, match=r"cannot write \.mp3"):
        audiofile.write(tmp_path / "a.mp3", audio, 48_000)
    with pytest.raises(Refused, match="FLAC cannot hold FLOAT"):
        audiofile.write(tmp_path / "a.flac", audio, 48_000, "FLOAT")
    with pytest.raises(PunchinError, match="No such file") as failed:
        audiofile.write(tmp_path / "no" / "a.wav", audio, 48_000)
    assert failed.value.exit_code == 1
    assert failed.value.hint == f"choose a folder that can be written, with -o; {tmp_path / 'no'} cannot"


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = audiofile.write(tmp_path / "a.wav", np.ones((1, 10), dtype=np.float32) / 2, 48_000)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: audiofile.write(path, np.zeros((1, 10)), 48_000),
        lambda: audiofile.write_bytes(path, b"x"),
    ):
        with pytest.raises(PunchinError, match="No space left") as failed:
            write()
        assert "make room" in failed.value.hint
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_new_files_are_as_readable_as_any_other(tmp_path):
    old = os.umask(0o022)
    try:
        path = audiofile.write(tmp_path / "a.wav", np.zeros((1, 10)), 48_000)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_disk_that_is_full_is_told_in_bytes(tmp_path):
    """A limit of the system on the size of files stands for the disk, so that the write fails for real."""
    script = (
        "import resource, sys, numpy as np; from punchin.session import audiofile;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "audiofile.write(sys.argv[1], np.zeros((2, 50_000), np.float32), 48_000, 'PCM_24')"
    )
    ended = subprocess.run([sys.executable, "-c", script, tmp_path / "a.wav"], capture_output=True, text=True)
    said = ended.stderr.splitlines()[-1]
    free = shutil.disk_usage(tmp_path).free
    told = re.search(r"cannot write .*a\.wav: .+; it takes up to 300,000 bytes, the disk has ([\d,]+) free", said)
    assert told, said
    assert int(told[1].replace(",", "")) == pytest.approx(free, rel=0.5)
    assert list(tmp_path.iterdir()) == []
