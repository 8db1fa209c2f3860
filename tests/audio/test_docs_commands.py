"""Every command in the docs works as it stands, and the docs tell all there is to tell."""

import re
import shlex
import shutil
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile
from punchinhere import Home

from punchin.clients.cli import arguments, verbs
from punchin.clients.demo import session_folder
from punchin.engine import tiny
from punchin.protocol import limits
from punchin.protocol.limits import Limit

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("tasks.md", "troubleshooting.md", "ableton.md", "training.md")


def commands(page):
    """The lines in code blocks that call punchin, but for those that wait for a DAW's clock."""
    blocks = re.findall(r"^ *```(\w*)\n(.*?)^ *```", (DOCS / page).read_text(), flags=re.S | re.M)
    lines = [line.strip() for kind, block in blocks if not kind for line in block.splitlines()]
    return [line for line in lines if line.startswith("punchin ") and "clock" not in line]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A home whose engine answers at once, and a folder with what the docs talk about."""
    here = Home(tmp_path_factory.mktemp("docs"), worker="identity")
    folder = tmp_path_factory.mktemp("songs")
    shutil.copytree(session_folder(), folder, dirs_exist_ok=True)
    (folder / "demo.rpp").rename(folder / "song.rpp")
    tracks = [
        soundfile.read(folder / "media" / f"{name}.flac", always_2d=True)[0] for name in ("drums", "bass", "keys")
    ]
    mix = sum(np.broadcast_to(track, (len(track), 2)) for track in tracks)
    soundfile.write(folder / "loop.wav", mix, 48_000, subtype="PCM_24")
    tempo = mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(97.35))
    mido.MidiFile(tracks=[mido.MidiTrack([tempo])]).save(folder / "tempo.mid")
    for number in (4, 9):
        shutil.copytree(tiny.ready(), folder / "my-model" / f"epoch-{number}-punchin")
    (folder / "chain.toml").write_text('[[effect]]\nname = "Gain"\ngain_db = -3.0\n')
    yield here, folder
    here.stop()


def adapted(line, here, folder):
    """The words of a line, with a real job and a real take for those that the docs can only name."""
    words = shlex.split(line)[1:]
    if "ID" in words:
        words[words.index("ID")] = here.json("jobs")[0]["job"]
    if "Media/TAKE.wav" in words:
        takes = sorted(folder.rglob("*-punchin-*.wav"))
        words[words.index("Media/TAKE.wav")] = str(takes[0].relative_to(folder))
    return words


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_work(place, page):
    here, folder = place
    lines = commands(page)
    assert len(lines) >= 4
    for line in lines:
        done = here.run(*adapted(line, here, folder), cwd=folder)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert "Traceback" not in done.stderr


def test_the_command_line_page_has_every_verb_and_option():
    page = (DOCS / "cli.md").read_text()
    for name, verb in verbs.BY_NAME.items():
        assert f"`{name}" in page, name
        if verb.part:
            continue
        module = __import__(f"punchin.clients.cli.{verb.module}", fromlist=["x"])
        parser = arguments.Parser(prog=name)
        getattr(module, f"{name}_arguments")(parser)
        for option in (each for action in parser._actions for each in action.option_strings if each.startswith("--")):
            assert re.search(rf"{option}(?![-\w])", page) or option == "--help", f"{name} {option}"


def told(value):
    """A bound as the page has it."""
    return f"{value:.0f}" if abs(value) != float("inf") and value == int(value) else f"{value:g}"


def test_the_command_line_page_quotes_every_limit():
    page = (DOCS / "cli.md").read_text()
    for limit in (value for value in vars(limits).values() if isinstance(value, Limit)):
        assert f"| {limit.name} | {told(limit.low)} | {told(limit.high)} |" in page, limit


def test_links_between_pages_lead_somewhere():
    for page in (*DOCS.glob("*.md"), DOCS.parent / "README.md"):
        for target in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
