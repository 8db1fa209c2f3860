"""The fake's projects and items as REAPER's text, read by the `rpp` package: a parser that is not the product's."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

import rpp

from fakereaper.model import Item, Project, Source, Take, Tempo

FADES = (
    ("FADEIN", "D_FADEINLEN", "C_FADEINSHAPE", "D_FADEINDIR"),
    ("FADEOUT", "D_FADEOUTLEN", "C_FADEOUTSHAPE", "D_FADEOUTDIR"),
)


def item_text(item: Item) -> str:
    """One ITEM chunk, as GetItemStateChunk gives it."""
    v = item.values
    lines = [
        "<ITEM",
        f"POSITION {v['D_POSITION']!r}",
        f"LENGTH {v['D_LENGTH']!r}",
        f"LOOP {int(v['B_LOOPSRC'])}",
        *(f"{tag} {int(v[shape])} {v[length]!r} 0 0 0 {v[bend]!r}" for tag, length, shape, bend in FADES),
        f"MUTE {int(v['B_MUTE'])} 0",
        f"IGUID {item.guid}",
    ]
    for i, take in enumerate(item.takes):
        volume = f"{take.values['D_PAN']!r} {take.values['D_VOL']!r} -1"
        if i:
            lines.append("TAKE SEL" if i == item.active else "TAKE")
        lines += [
            f'NAME "{take.name}"',
            f"VOLPAN {v['D_VOL']!r} {volume}" if i == 0 else f"TAKEVOLPAN {volume}",
            f"SOFFS {take.values['D_STARTOFFS']!r}",
            f"PLAYRATE {take.values['D_PLAYRATE']!r} 1 {take.values['D_PITCH']!r} -1 0 0.0025",
            f"CHANMODE {int(take.values['I_CHANMODE'])}",
            f"GUID {take.guid}",
            f"<SOURCE {take.source.type}",
            f'FILE "{take.source.path}"',
            ">",
        ]
    return "\n".join([*lines, ">", ""])


def fill_item(item: Item, chunk, base: Path = Path()) -> None:
    """Give an item the values of an ITEM chunk (text, or an element of the parser)."""
    element = rpp.loads(chunk) if isinstance(chunk, str) else chunk
    groups = [[]]
    for child in element.children:
        if isinstance(child, list) and child[0] == "TAKE":
            groups.append([])
        groups[-1].append(child)
    own = {child[0]: child[1:] for child in groups[0] if isinstance(child, list)}
    v = item.values
    v["D_POSITION"], v["D_LENGTH"] = float(own["POSITION"][0]), float(own["LENGTH"][0])
    v["B_LOOPSRC"] = float(own.get("LOOP", ["0"])[0])
    v["B_MUTE"] = float(own.get("MUTE", ["0"])[0])
    v["D_VOL"] = float(own.get("VOLPAN", ["1"])[0])
    for tag, length, shape, bend in FADES:
        if tag in own:
            v[shape], v[length] = float(own[tag][0]), float(own[tag][1])
            v[bend] = float(own[tag][5]) if len(own[tag]) > 5 else 0.0
    item.guid = own.get("IGUID", [item.guid])[0]
    item.selected = own.get("SEL", ["0"])[0] == "1"
    item.takes = [_take(item, group, i == 0, base) for i, group in enumerate(groups) if i or _source_of(group)]
    chosen = [i for i, group in enumerate(groups) if isinstance(group[0], list) and group[0][1:] == ["SEL"]]
    item.active = chosen[0] if chosen and group_is_take(groups[chosen[0]]) else 0


def group_is_take(group) -> bool:
    return isinstance(group[0], list) and group[0][0] == "TAKE"


def _take(item, group, first, base) -> Take:
    lines = {child[0]: child[1:] for child in group if isinstance(child, list)}
    take = Take(item, _source(_source_of(group), base), lines.get("NAME", [""])[0])
    gain = lines.get("VOLPAN", ["1", "0", "1"])[1:] if first else lines.get("TAKEVOLPAN", ["0", "1"])
    take.values["D_PAN"], take.values["D_VOL"] = float(gain[0]), float(gain[1])
    take.values["D_STARTOFFS"] = float(lines.get("SOFFS", ["0"])[0])
    rate = lines.get("PLAYRATE", ["1", "1", "0"])
    take.values["D_PLAYRATE"], take.values["D_PITCH"] = float(rate[0]), float(rate[2])
    take.values["I_CHANMODE"] = float(lines.get("CHANMODE", ["0"])[0])
    take.guid = lines.get("GUID", [take.guid])[0]
    take.stretch_markers = int("SM" in lines)
    take.fx = [True for child in group if isinstance(child, rpp.Element) and child.tag == "TAKEFX"]
    take.envelopes = sum(isinstance(child, rpp.Element) and child.tag.endswith("ENV") for child in group)
    return take


def _source_of(group):
    return next((child for child in group if isinstance(child, rpp.Element) and child.tag == "SOURCE"), None)


def _source(element, base):
    if element is None:
        return None
    kind = element.attrib[0]
    inner = element.find("SOURCE")
    if kind == "SECTION" and inner is not None:
        return Source("", kind, 1.0, parent=_source(inner, base), section=(0.0, 1.0, False))
    file = next((child[1] for child in element.children if isinstance(child, list) and child[0] == "FILE"), "")
    relative = PureWindowsPath(file).as_posix() if "\\" in file else file
    return Source(base / relative if file else "", kind, 1.0 if kind == "MIDI" else None)


def load_project(path) -> Project:
    """A `.rpp` as the fake's project: what REAPER would have open."""
    path = Path(path)
    with path.open(encoding="utf-8") as file:
        root = rpp.load(file)
    project = Project(path, path.parent / "Media", _tempo(root))
    for element in root.findall("TRACK"):
        lines = {child[0]: child[1:] for child in element.children if isinstance(child, list)}
        track = project.add_track(lines.get("NAME", [""])[0])
        track.guid = (element.attrib or [track.guid])[0]
        track.values["B_MUTE"] = float(lines.get("MUTESOLO", ["0"])[0])
        for chunk in element.findall("ITEM"):
            item = Item(track)
            fill_item(item, chunk, path.parent)
            track.items.append(item)
    return project


def _tempo(root) -> Tempo:
    base = root.find("TEMPO") or ["TEMPO", "120", "4", "4"]
    signature, points = (int(base[2]), int(base[3])), []
    envelope = root.find("TEMPOENVEX")
    for line in envelope.children if envelope is not None else ():
        if line[0] == "PT":
            if len(line) > 4 and int(line[4]) > 0:
                signature = int(line[4]) & 0xFFFF, int(line[4]) >> 16
            points.append((float(line[1]), float(line[2]), line[3] == "0", *signature))
    return Tempo(points or [(0.0, float(base[1]), False, *signature)])
