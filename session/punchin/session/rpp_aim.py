"""From a region to a target: which items it meets, on whose frames it counts, and what its take files span."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import ceil, floor, log10

from punchin.protocol import limits
from punchin.protocol.errors import Refused
from punchin.session import splice
from punchin.session.gain import HELD_BELOW_DB
from punchin.session.region import Region
from punchin.session.render import BALANCED, PLAIN_LAWS, ItemSound, fade_spans, open_item
from punchin.session.rpp_project import MAX_LANES, Item, Project, Track
from punchin.session.rpp_target import Form, RppTarget, Span
from punchin.session.rpp_voices import TOUCH_S, Voice, Voices
from punchin.session.target import How
from punchin.session.tempo import TempoMap

EDGE_S = 0.1  # a neighbour that reaches this far into a region is a crossfade, not a second layer of it
COVER_S = 0.001  # an item that ends this much before a bar line was cut at it
WHOLE_S = 1200  # an item longer than this is not written whole for a take of a few bars
QUIET_DB = HELD_BELOW_DB + 3  # nothing of a take would be heard on a quieter item; a mono one panned hard loses 3 dB
LEAD_S = splice.FADES_S[0] + splice.EARLY_S
AROUND_S = limits.REGION.high  # how far around its region a layer may listen
_LOSSLESS = {"PCM_S8": "PCM_24", "PCM_U8": "PCM_24", "PCM_16": "PCM_24", "PCM_24": "PCM_24", "PCM_32": "PCM_32"}


def at_track(project: Project, track: Track, region: Region, how: How) -> RppTarget:
    """The region of one track. Raises Refused for what sounds in the region and cannot be rendered."""
    _check_lanes(track, region, how)
    voices = Voices(project, (Voice(track),))
    covering = _covering(track, region) if how == "take" else None
    apart = () if covering is None else _apart(covering)
    if covering is not None and not apart:
        return _on_item(voices, track, region, covering)
    low_s, high_s = _cuts(voices, track, region)
    sounds = voices.sounds(low_s, high_s)
    rate_hz = _rate(sounds, project)
    origin_s = _phase(sounds, rate_hz)
    clear, start, stop = (  # frame 0 is the first of the project; before `clear` nothing can be heard
        max(round((at_s - origin_s) * rate_hz), 0)
        for at_s in (_clear_from(voices, region), region.start_s, region.end_s)
    )
    low = min(max(floor((low_s - origin_s) * rate_hz + 1e-6), clear), start)  # outwards: no fade moves beyond them
    high = max(ceil((high_s - origin_s) * rate_hz - 1e-6), stop)
    _check_cuts(track, origin_s + low / rate_hz, origin_s + high / rate_hz, how)
    before, after = (round((at_s - origin_s) * rate_hz) for at_s in _handles(voices, region, low_s, high_s))
    file = Span(min(before, low), max(after, high))
    around = voices.sounds(*(origin_s + frame / rate_hz for frame in file))
    form = _form([*sounds, *around], project, rate_hz, _channels(around) if sounds else 2)
    return RppTarget(
        project, _name(track), track, region, how, None, voices, form, origin_s,
        file, Span(low, high), Span(start, stop), (*apart, *_notes(project, track, sounds, region)),
    )  # fmt: skip


def over_tracks(project: Project, region: Region, name: str, named: Sequence[Track]) -> RppTarget:
    """A new track over a region, hearing the named tracks, or all unmuted ones through their faders.

    Of all tracks, items that cannot be rendered are left out and noted; of named ones they are refused.
    """
    tracks = named or [track for track in project.tracks if not track.muted]
    if not tracks:
        raise Refused("all tracks are muted: there is nothing to hear", "unmute one, or use --hear NAME")
    left_out: dict[int, str] = {}
    if not named:
        for track in tracks:
            left_out |= _not_renderable(project, track, region)
    voices = Voices(project, tuple(Voice.after_fader(track) for track in tracks), frozenset(left_out))
    form = Form(
        _rate(voices.sounds(region.start_s, region.end_s), project), 2, project.record_format or "WAV", "PCM_24"
    )
    low_s = max(region.start_s - LEAD_S, _clear_from(voices, region))
    low, start, stop = (round(at_s * form.rate_hz) for at_s in (low_s, region.start_s, region.end_s))
    notes = [*project.notes, *(f"not heard: {why}" for why in left_out.values())]
    if len(tracks) > 1:
        notes.append("tracks are heard through their own faders; folders, sends, envelopes and effects are not")
    notes += _layer_notes(voices, low_s, region.end_s)
    under = tracks[-1] if named else None  # what is made of all belongs into no folder
    return RppTarget(
        project, name, under, region, "track", None, voices, form, 0.0,
        Span(low, stop), Span(low, stop), Span(start, stop), tuple(notes), replaces=False,
    )  # fmt: skip


def _check_lanes(track: Track, region: Region, how: How) -> None:
    if how == "lane" and track.free:
        text = f"track {_name(track)!r} positions its items freely, so it has no lanes"
        raise Refused(text, "use --land split, or turn free item positioning off and save")
    if how == "lane" and max(track.lanes, *(item.lane + 1 for item in track.items), 0) >= MAX_LANES:
        raise Refused(f"track {_name(track)!r} has {MAX_LANES} lanes, allowed are no more", "use --land split")
    inside = [i for i in track.sounding() if i.start_s < region.end_s and i.end_s > region.start_s - LEAD_S]
    if track.masks and len({item.lane for item in inside}) > 1:
        text = f"several lanes of track {_name(track)!r} play there, and its higher ones mask the lower"
        raise Refused(text, "let one lane play (Track lanes: Play only lane), save, and try again")


def _on_item(voices: Voices, track: Track, region: Region, item: Item) -> RppTarget:
    """A take on the one item: its file is the whole item and its handles, on the source's own frames."""
    _check_lock(track, item)
    sound = voices.sound(track, item)
    form = _form([sound], voices.project, sound.info.rate_hz, sound.channels)
    whole = Span(0, sound.whole(form.rate_hz))
    bars = (_bar_s(voices.project.tempo, at_s) for at_s in (item.start_s - EDGE_S, item.end_s))
    before, after = sound.handles(form.rate_hz, *(round(bar_s * form.rate_hz) for bar_s in bars))
    start, stop = (round((at_s - sound.origin_s) * form.rate_hz) for at_s in (region.start_s, region.end_s))
    inside = Span(max(start, whole.first), min(stop, whole.stop))
    clear_s = _clear_from(voices, region)
    around = voices.sounds(max(region.start_s - LEAD_S, clear_s), region.end_s)
    return RppTarget(
        voices.project, _name(track), track, region, "take", sound, voices, form, sound.origin_s,
        Span(-before, whole.stop + after), whole, inside, _notes(voices.project, track, around, region), clear_s,
    )  # fmt: skip


def _bar_s(tempo: TempoMap, at_s: float) -> float:
    """The length of the bar at a project time."""
    bar = tempo.bar_at(max(at_s, 0.0))
    start_s, end_s = tempo.bars_to_seconds(bar, bar)
    return end_s - start_s


def _covering(track: Track, region: Region) -> Item | None:
    """The one item that a take can go on: it covers the region, all others only crossfade into it.

    None that plays all its takes: it would play the old one and the new one at once.
    """
    items = [item for item in track.sounding() if item.start_s < region.end_s and item.end_s > region.start_s]
    covering = [i for i in items if i.start_s <= region.start_s + COVER_S and i.end_s >= region.end_s - COVER_S]
    if len(covering) != 1 or covering[0].plays_all_takes:
        return None
    for item in items:
        inside_s = min(item.end_s, region.end_s) - max(item.start_s, region.start_s)
        at_edge = item.start_s < region.start_s or item.end_s > region.end_s
        if item is not covering[0] and (inside_s > EDGE_S or not at_edge):
            return None
    return covering[0]


def _apart(item: Item) -> tuple[str, ...]:
    """Why a take of an item is an item of its own, in words; empty where it is a take on the item."""
    gain_db = 20 * log10(max(abs(item.gain * item.take.gain), 1e-6))
    if item.length_s > WHOLE_S:
        why = f"is over {WHOLE_S} s long"
    elif gain_db < QUIET_DB:
        why = f"plays at {gain_db:.1f} dB, a take on it needs {QUIET_DB:.0f} dB"
    else:
        return ()
    return (f"item {item.number} {why}: the take is an item of its own",)


def _clear_from(voices: Voices, region: Region) -> float:
    """Where a take's lead may begin at most: all can be rendered from there on. Raises Refused for the region."""
    return voices.hearable(region, 0.0, region.end_s)[0]


def _cuts(voices: Voices, track: Track, region: Region) -> tuple[float, float]:
    """Where the originals are split: at the lead's start and the region's end, further out past any fade there."""
    low, high = max(region.start_s - LEAD_S, _clear_from(voices, region)), region.end_s
    fades = [span for item in track.sounding() if voices.renders(track, item) for span in fade_spans(item)]
    for start, end in sorted(fades, reverse=True):
        if start < low < end:
            low = start
    for start, end in sorted(fades):
        if start < high < end:
            high = end
    return max(low, 0.0), high


def _check_lock(track: Track, item: Item) -> None:
    """Refuse to change an item that is locked in REAPER."""
    if item.locked:
        text = f"item {item.number} of track {_name(track)!r} (at {item.start_s:.3f} s) is locked and would be changed"
        raise Refused(text, "unlock it in REAPER and save, or use --land lane, which leaves it whole")


def _check_cuts(track: Track, low_s: float, high_s: float, how: How) -> None:
    """Refuse to cut an item whose takes, heard or not, hold what counts from its start and would not move along.

    A locked item is neither cut nor muted; a new lane does that to copies.
    """
    for item in track.sounding():
        if item.start_s >= high_s - TOUCH_S or item.end_s <= low_s + TOUCH_S:
            continue
        if how != "lane":
            _check_lock(track, item)
        if item.start_s >= low_s - TOUCH_S and item.end_s <= high_s + TOUCH_S:
            continue
        for number, take in enumerate(item.takes, start=1):
            if take.stretched or take.moves:
                what = "stretch markers" if take.stretched else "envelope points"
                raise Refused(
                    f"item {item.number} of track {_name(track)!r} (at {item.start_s:.3f} s) would be cut, but its "
                    f"take {number} has {what}, which would not move along",
                    "glue it in REAPER (Item: Glue items; only the active take stays), save, and try again",
                )


def _handles(voices: Voices, region: Region, low_s: float, high_s: float) -> tuple[float, float]:
    """What a new item's file spans: a bar more on both sides, as far as that can be rendered and the project goes."""
    tempo = voices.project.tempo
    first, last = region.bars
    earlier = max(first - 1, tempo.first_bar)
    before = region.start_s - tempo.bars_to_seconds(earlier, earlier)[0] if earlier < first else 0.0
    after_start, after_end = tempo.bars_to_seconds(last + 1, last + 1)
    start_s, end_s = max(low_s - before, 0.0), high_s + after_end - after_start
    start_s, end_s = voices.hearable(region, start_s, max(min(end_s, voices.project.end_s), high_s))
    return min(start_s, low_s), max(end_s, high_s)


def _form(sounds: Sequence[ItemSound], project: Project, rate_hz: int, channels: int) -> Form:
    """Files as deep as the sources, at least 24 bit."""
    if not sounds:
        return Form(rate_hz, channels, project.record_format or "WAV", "PCM_24")
    subtypes = {_LOSSLESS.get(sound.info.subtype, sound.info.subtype) for sound in sounds}
    if subtypes == {"PCM_24"}:
        source = sounds[0].info.format
        own = source if source in ("FLAC", "AIFF") else "WAV"
        return Form(rate_hz, channels, project.record_format or own, "PCM_24")
    wide = [name for name in ("DOUBLE", "PCM_32") if subtypes == {name}]
    return Form(rate_hz, channels, "WAV", wide[0] if wide else "FLOAT")


def _channels(sounds: Sequence[ItemSound]) -> int:
    """Channels of an item that plays what all of these are heard as: it has no pan of its own."""
    return 2 if any(sound.take.pan for sound in sounds) else max(sound.channels for sound in sounds)


def _rate(sounds: Sequence[ItemSound], project: Project) -> int:
    """The rate that all sources share, else the project's, else 48,000 Hz."""
    rates = {sound.info.rate_hz for sound in sounds}
    return rates.pop() if len(rates) == 1 else project.rate_hz or limits.MODEL_HZ


def _phase(sounds: Sequence[ItemSound], rate_hz: int) -> float:
    """Where frame 0 lies so that the first item's own frames are kept: within one frame after time 0."""
    plain = [sound for sound in sounds if sound.plain_at(rate_hz)]
    return (plain[0].origin_s * rate_hz % 1.0) / rate_hz if plain else 0.0


def _not_renderable(project: Project, track: Track, region: Region) -> dict[int, str]:
    """The items near a region that cannot be rendered, by first line, and why."""
    out: dict[int, str] = {}
    for item in track.sounding():
        if item.start_s < region.end_s + AROUND_S and item.end_s > region.start_s - AROUND_S:
            try:
                open_item(project, track, item)
            except Refused as error:
                out[item.chunk.first] = str(error)
    return out


def _notes(project: Project, track: Track, sounds: Sequence[ItemSound], region: Region) -> tuple[str, ...]:
    items = _item_notes(sounds, region.start_s - LEAD_S, region.end_s)
    return (*project.notes, *items, *_track_notes(track))


def _layer_notes(voices: Voices, start_s: float, end_s: float) -> list[str]:
    """What is approximated of the tracks that sound between two project times, each by its name."""
    notes: list[str] = []
    for _, found in groupby(voices.items(start_s, end_s), key=lambda each: each[0].track.number):
        heard = list(found)
        track = heard[0][0].track
        name = f"track {_name(track)!r}"
        sounds = [voices.sound(track, item) for _, item in heard]
        notes += [f"{name}: {note}" for note in _item_notes(sounds, start_s, end_s)]
        notes += _track_notes(track)
        if track.pan and (track.pan_law if track.pan_law >= 0 else voices.project.pan_law) not in PLAIN_LAWS:
            notes.append(BALANCED.format(name))
    return notes


def _item_notes(sounds: Sequence[ItemSound], start_s: float, end_s: float) -> list[str]:
    """What is approximated of items between two project times; of several with the same the first is named."""
    same: dict[str, list[int]] = {}
    for sound in sounds:
        for note in sound.notes(start_s, end_s):
            same.setdefault(note, []).append(sound.item.number)
    return [
        note.format(f"item {first} (and {len(others)} more)" if others else f"item {first}")
        for note, (first, *others) in same.items()
    ]


def _track_notes(track: Track) -> list[str]:
    notes: list[str] = []
    if track.muted:
        notes.append(f"track {_name(track)!r} is muted in the project")
    if track.delay_s:
        notes.append(f"track {_name(track)!r} plays {track.delay_s:g} s off; it is heard in place")
    return notes


def _name(track: Track) -> str:
    return track.name or f"track {track.number}"
