"""Takes into a REAPER project: take files beside the old ones, and a new project that names them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

import numpy as np

from punchin.protocol.errors import Refused
from punchin.session import audiofile
from punchin.session.rpp_landing import Group, with_takes
from punchin.session.rpp_target import RppTarget
from punchin.session.takefiles import note_file, write_note
from punchin.session.target import Landing, LandingTake, check_apart, file_stem, hold_name, lay_over


def land(landings: Sequence[tuple[RppTarget, Sequence[LandingTake]]], out: Path | None) -> tuple[Landing, ...]:
    """Write the take files, then one project that names them all. On an error the files written so far go again.

    landings: targets of one project with their takes, each target as many. Several regions of one item share its takes.
    """
    project = landings[0][0].project
    _check_output(project.path, out)
    groups = _by_item(landings)
    written: list[Path] = []
    try:
        for group in groups:
            folder = _writable(media_folder(group.target), out)
            folder.mkdir(parents=True, exist_ok=True)
            for take in group.takes:
                written.append(_write_take(group.target, take, folder))
                write_note(written[-1], take.provenance)
                group.files.append(written[-1])
        moved = out is not None and out.absolute().parent != project.path.parent
        data = with_takes(project, groups, moved)
        output = out or hold_name(project.path.with_name(f"{project.path.stem}-punchin{project.path.suffix}"))
        if out is None:
            written.append(output)
        audiofile.write_bytes(output, data)
    except BaseException as error:
        for file in written:
            file.unlink(missing_ok=True)
            note_file(file).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise audiofile.disk_error(Path(error.filename or project.path.parent), error) from error
        raise
    of = {id(target): group for group in groups for target in group.targets}
    return tuple(
        Landing(output, tuple(of[id(target)].files), tuple(take.shown for take in of[id(target)].takes))
        for target, _ in landings
    )


def _by_item(landings: Sequence[tuple[RppTarget, Sequence[LandingTake]]]) -> list[Group]:
    """The landings, those on one item laid over each other. Refuses regions that touch."""
    groups: list[Group] = []
    for target, takes in landings:
        for group in groups:
            check_two(group.target, target)
        same = next((g for g in groups if same_item(g.target, target)), None)
        if same is None:
            groups.append(Group(target, [target], list(takes), []))
        else:
            same.targets.append(target)
            ids = {id(each) for each in same.targets}
            for i in range(len(takes)):
                check_apart([each[i].placed for landed, each in landings if id(landed) in ids])
            same.takes[:] = [lay_over(*pair) for pair in zip(same.takes, takes, strict=True)]
    return groups


def check_two(first: RppTarget, second: RppTarget) -> None:
    """Two items, lanes or splits on one track must not meet. Takes on one item are checked where they are laid over.

    Raises Refused.
    """
    if not (first.replaces and second.replaces) or first.under is not second.under:
        return
    if first.how == "lane" or second.how == "lane":
        raise Refused(f"two regions of track {first.track!r} cannot land in one lane each", "use --land split")
    ends = [(target.time_at(target.shown.first), target.time_at(target.shown.stop)) for target in (first, second)]
    if first.item is None and second.item is None and ends[0][0] < ends[1][1] and ends[1][0] < ends[0][1]:
        raise Refused(f"two regions of track {first.track!r} touch each other", "select them as one region")
    if (first.item is None) != (second.item is None):
        alone, item = (first, second.item) if first.item is None else (second, first.item)
        assert item is not None
        low_s, high_s = alone.time_at(alone.shown.first), alone.time_at(alone.shown.stop)
        if item.item.start_s < high_s and item.item.end_s > low_s:
            raise Refused(f"two regions of track {first.track!r} meet on one item", "land them one after the other")


def same_item(first: RppTarget, second: RppTarget) -> bool:
    """Whether two regions land as takes of one item."""
    if first.item is None or second.item is None:
        return False
    return first.item.item.chunk.first == second.item.item.chunk.first


def media_folder(target: RppTarget) -> Path:
    """Where take files go: the project's recording folder, else where the item's media lies if that is within the
    project's folder, else `Media` beside the project.
    """
    base = target.project.path.parent
    recorded = target.project.record_path.replace("\\", "/")
    foreign = PureWindowsPath(recorded).drive and not Path(recorded).is_absolute()  # another machine's folder
    if recorded and not foreign and (not Path(recorded).is_absolute() or Path(recorded).is_dir()):
        return base / recorded
    if target.item is not None and target.item.path.resolve().is_relative_to(base.resolve()):
        return target.item.path.parent
    return base / "Media"


def _writable(folder: Path, out: Path | None) -> Path:
    """The folder, or where it may not be written, `Media` beside an output that was sent elsewhere."""
    there = next((each for each in (folder, *folder.parents) if each.exists()), folder)
    return folder if out is None or os.access(there, os.W_OK) else out.absolute().parent / "Media"


def _check_output(path: Path, out: Path | None) -> None:
    if out is None:
        return
    if out.suffix.lower() != path.suffix.lower():
        raise Refused(f"-o {out.name} is no {path.suffix} file", f"name it {out.stem}{path.suffix}")
    if out.exists() and out.samefile(path):
        raise Refused(f"-o {out} is the session itself, which is never written", "choose another name")
    if not out.absolute().parent.is_dir():
        raise Refused(f"the folder of -o {out} does not exist", f"mkdir -p {out.parent}")


def _write_take(target: RppTarget, take: LandingTake, folder: Path) -> Path:
    """A new file for one take; what is over full scale, which integers would clip, is kept as float."""
    kind, subtype = target.form.format, target.subtype
    wide = {"PCM_24": "FLOAT", "PCM_32": "DOUBLE"}.get(subtype)
    if wide is not None and max(np.max(take.placed.after), -np.min(take.placed.after)) > 1.0:
        kind, subtype = "WAV", wide
    stem = file_stem(f"{target.track}-{take.file_name or take.name}")
    path = hold_name(folder / f"{stem}{audiofile.EXTENSIONS[kind]}")
    try:
        return audiofile.write(path, take.placed.after, target.rate_hz, subtype)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
