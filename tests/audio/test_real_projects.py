"""Every way to land, on real projects: their media is made anew as noise, their lines are their own."""

import shutil

import numpy as np
import pytest
import rpp as oracle
import soundfile
from realparts import corpus

from punchin.protocol.errors import Refused
from punchin.session.document import LandingTake, land, open_session
from punchin.session.rpp_voices import Voice, Voices

RATE = 48_000


def furnished(path, folder):
    """A copy of a project with noise for each media file that it names."""
    copy = folder / path.name
    shutil.copyfile(path, copy)
    names = {item.take.source.file for track in open_session(copy).project.tracks for item in track.sounding()}
    for i, name in enumerate(sorted(names - {""})):
        file = folder / name.replace("\\", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).uniform(-0.1, 0.1, (3 * RATE, 1 + i % 2))
        if file.suffix.lower() in (".wav", ".flac", ".aif", ".aiff"):
            soundfile.write(file, noise, RATE)
    return copy


def places(session):
    """A few regions of each project: within items, and across the edges of neighbours."""
    for track in session.project.tracks:
        for item in [i for i in track.sounding() if i.length_s > 1][:2]:
            yield track, (item.start_s + 0.3, item.start_s + min(item.length_s - 0.1, 2.0))
            yield track, (max(item.end_s - 0.5, 0.0), item.end_s + 0.5)


def identity(target):
    start_s = target.time_at(target.start_frame - target.lead_frames)
    return target.place(target.heard(start_s, target.time_at(target.end_frame)))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["take", "split", "lane", "track"])
def test_what_came_back_as_it_went_sounds_as_before(tmp_path, how):
    done, refused = 0, []
    for path in sorted(p for p in corpus("rpp").rglob("*") if p.suffix.lower() == ".rpp"):
        copy = furnished(path, tmp_path)
        before = copy.read_bytes()
        session = open_session(copy)
        for track, (start_s, end_s) in list(places(session))[:45:3]:
            try:
                region = session.region(time=(start_s, min(end_s, session.end_s)))
                target = session.target(str(track.number), region, how)
            except Refused as error:
                refused.append(str(error))
                continue
            result = land(target, [LandingTake(identity(target), "punchin 1", {"seed": 1})], tmp_path / "out.rpp")
            again = open_session(result.output)
            oracle.loads(result.output.read_text("utf-8", "surrogateescape").replace("\r\n", "\n"))
            low_s, high_s = target.hearable(max(start_s - 1, 0), end_s + 1)
            old = target.heard(low_s, high_s)
            tracks = again.project.tracks[track.number - 1 : track.number + (how == "track")]
            voices = Voices(again.project, tuple(Voice(each) for each in tracks))
            frames = target.frame_at(low_s), target.frame_at(high_s)
            new = voices.frames(target.rate_hz, target.origin_s, *frames)
            np.testing.assert_allclose(new, old, atol=2**-22)
            assert again.end_s >= session.end_s - 1e-9
            for file in result.take_files:
                file.unlink()
            done += 1
        assert copy.read_bytes() == before
    assert done > 8
    assert all("is " in text or "has " in text or "plays " in text for text in refused)


def test_a_take_only_adds_lines_to_a_real_project(tmp_path):
    changed = 0
    for path in sorted(p for p in corpus("rpp").rglob("*") if p.suffix.lower() == ".rpp"):
        copy = furnished(path, tmp_path)
        session = open_session(copy)
        for track, (start_s, end_s) in list(places(session))[:40:3]:
            try:
                target = session.target(str(track.number), session.region(time=(start_s, min(end_s, session.end_s))))
            except Refused:
                continue
            if target.item is None:
                continue
            output = land(target, [LandingTake(identity(target), "punchin 1")], tmp_path / "out.rpp").output
            lines = iter(output.read_bytes().split(b"\n"))
            missing = [line for line in copy.read_bytes().split(b"\n") if line not in lines]
            assert all(b"TAKE SEL" in line for line in missing)
            changed += 1
    assert changed > 3
