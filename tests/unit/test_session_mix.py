"""The rough mix is the sum of what the tracks play, at their volume and pan."""

import shutil

import numpy as np
import pytest
import soundfile

from punchin.clients.demo import session_folder
from punchin.session import mix, rpp_session


@pytest.fixture
def demo(tmp_path):
    folder = tmp_path / "session"
    shutil.copytree(session_folder(), folder)
    return folder


def media(folder, name):
    audio, _ = soundfile.read(folder / "media" / f"{name}.flac", always_2d=True)
    return np.broadcast_to(audio.T, (2, len(audio)))


def mixed(folder, *tracks):
    session = rpp_session.open_project(folder / "demo.rpp")
    return mix.mixdown(session.project, 48_000, 0.0, session.end_s, tracks)


def test_a_mix_is_the_sum_of_its_tracks(demo):
    wanted = sum(media(demo, name) for name in ("drums", "bass", "keys"))
    assert np.array_equal(mixed(demo), wanted.astype(np.float32))


def test_volume_pan_and_mute_of_a_track_are_heard(demo):
    rpp = demo / "demo.rpp"
    head, keys = rpp.read_text().split("NAME Keys")
    head = head.replace("MUTESOLO 0 0 0", "MUTESOLO 1 0 0")
    rpp.write_text(head + "NAME Keys" + keys.replace("VOLPAN 1 0 -1 -1 1", "VOLPAN 0.5 0.25 -1 -1 1"))
    wanted = media(demo, "keys") * 0.5 * np.array([[0.75], [1.0]])
    np.testing.assert_allclose(mixed(demo), wanted, atol=1e-7)


def test_a_track_of_flipped_polarity_is_taken_away(demo):
    rpp = demo / "demo.rpp"
    head, keys = rpp.read_text().split("NAME Keys")
    rpp.write_text(head + "NAME Keys" + keys.replace("IPHASE 0", "IPHASE 1"))
    wanted = media(demo, "drums") + media(demo, "bass") - media(demo, "keys")
    np.testing.assert_allclose(mixed(demo), wanted, atol=1e-7)


def test_named_tracks_are_heard_alone(demo):
    session = rpp_session.open_project(demo / "demo.rpp")
    bass = next(track.guid for track in session.project.tracks if track.name == "Bass")
    assert np.array_equal(mixed(demo, bass), media(demo, "bass").astype(np.float32))
