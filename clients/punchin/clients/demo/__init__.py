"""The bundled demo session: 16 bars of drums, bass and keys at 97.35 bpm, ours from score to media."""

from pathlib import Path


def session_folder() -> Path:
    """The folder that holds `demo.rpp` and its media. Copy it before changing anything: it is a part of the package."""
    return Path(__file__).parent / "session"
