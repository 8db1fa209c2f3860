"""One request's way: from the spool through the journey to events that a DAW lands."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from punchin.clients.bridge.project import project_text
from punchin.clients.bridge.request import RegionRequest
from punchin.clients.bridge.spool import BEAT_S, Spool
from punchin.clients.bridge.words import journey_requests
from punchin.protocol.errors import Cancelled, PunchinError, Refused

if TYPE_CHECKING:
    from punchin.clients import journey
    from punchin.protocol.order import Event
    from punchin.session.rpp_project import Item

log = logging.getLogger(__name__)

Fields = dict[str, object]
NAME_BYTES: Final = 200  # what is written beside it has a longer name
PROGRESS_S: Final = 0.15  # at most so often; a new phase is told at once


def cancel_job(id: str) -> None:
    """Cancel a job of the daemon's, where it has it: without a daemon it does not run either."""
    from punchin.clients.connect import connect

    try:
        with connect(start=False, name="bridge") as client:
            client.cancel(id)
    except PunchinError as error:
        log.info("cancel of %s: %s", id, error)


class Work:
    """One request under way in a thread. `instance` is who hears of it, and may change while it runs.

    `cancel` may be called from another thread, at any time and repeatedly.
    """

    def __init__(self, spool: Spool, request: RegionRequest) -> None:
        self.spool, self.request, self.instance = spool, request, request.instance
        self.text = "waits"
        self._wanted_cancel = threading.Event()
        self._job = ""
        self._began_s = time.monotonic()
        self._phase, self._phase_began_s, self._told_s = "", self._began_s, 0.0

    @property
    def id(self) -> str:
        """The request's id."""
        return self.request.id

    def run(self) -> None:
        """Go the whole way; whatever happens, the DAW hears how it ended."""
        try:
            self._check()
            self._tell({"kind": "accepted", "text": "the region is being read"})
            result = self._travel()
            self._end(done(self.request, result, time.monotonic() - self._began_s))
            self._name_place(result)
        except Cancelled:
            self._end({"kind": "cancelled"})
        except PunchinError as error:
            self._end({"kind": "failed", "text": str(error), "hint": error.hint})
        except Exception as error:
            log.exception("request %s", self.id)
            text = f"bug in punchin ({type(error).__name__}: {error}); see {self.spool.path('bridge.log')}"
            self._end({"kind": "failed", "text": text, "hint": "punchin doctor"})

    def cancel(self) -> None:
        """Stop as soon as it can be; the job ends as cancelled, or as done if that came first."""
        self._wanted_cancel.set()
        if self._job:
            cancel_job(self._job)

    # -- what the journey tells --------------------------------------------------------------------------------
    def say(self, text: str) -> None:
        """A line of talk: the log has it, a DAW needs none."""
        log.info("%s: %s", self.id, text)

    def warn(self, text: str) -> None:
        """Something that the user should know."""
        self._tell({"kind": "note", "text": text})

    def watch(self, event: Event) -> None:
        """How far the job is, in words with an ETA, not more often than a DAW can show."""
        self._job = event.job
        if self._wanted_cancel.is_set() and event.state in ("queued", "leased", "running"):
            self.cancel()
        now_s = time.monotonic()
        if event.phase != self._phase:
            self._phase, self._phase_began_s, self._told_s = event.phase, now_s, 0.0
        if now_s - self._told_s < PROGRESS_S:
            return
        self._told_s = now_s
        self._tell({"kind": "progress", "text": _progress(event, now_s - self._phase_began_s)})

    # -- steps ---------------------------------------------------------------------------------------------------
    def _check(self) -> None:
        if self._wanted_cancel.is_set():
            raise Cancelled("cancelled before it began")
        request, audio = self.request, self.spool.path("audio").resolve()
        media = Path(request.project.media_folder)
        if not media.is_absolute() or not media.is_dir():
            raise Refused(f"the project's media folder {media} does not exist", "save the project, then try again")
        for track in request.tracks:
            for item in track.items:
                path = Path(item.source.path)
                if not path.is_absolute():
                    raise Refused(f"{item.take.name}: {path} is no absolute path", "save the project, then try again")
                if path.is_relative_to(self.spool.root) and path.resolve().parent != audio:
                    raise Refused(f"{item.take.name}: {path} is a file of the spool's own", "report this")

    def _travel(self) -> journey.Result:
        from punchin.clients import journey

        folder = self.spool.path("work", self.id)
        folder.mkdir(exist_ok=True, mode=0o700)
        session = folder / _session_name(self.request.project.path)
        session.write_text(project_text(self.request), encoding="utf-8", errors="surrogateescape", newline="")
        return journey.perform_all(journey_requests(self.request, session), self)

    def _name_place(self, result: journey.Result) -> None:
        """In the journal: where the takes are for people, not the session that served the journey and is gone."""
        from punchin.clients.connect import connect

        place = self.request.project.path or self.request.project.media_folder
        try:
            with connect(start=False, name="bridge") as client:
                for job in {rolled.record.id for rolled in result.rolled}:
                    client.landed(job, place)
        except PunchinError as error:
            log.info("where %s landed: %s", self.id, error)

    def _tell(self, fields: Fields) -> None:
        self.text = str(fields.get("text", fields["kind"]))
        try:
            self.spool.say(self.instance, {"job": self.id} | fields)
        except OSError as error:  # a full disk stops no job that has room for its take
            log.warning("%s was not told %s: %s", self.id, fields, error)

    def _end(self, fields: Fields) -> None:
        """The last word, as soon as there is room for it: a take that nobody is told of lands nowhere."""
        whole = {"job": self.id} | fields
        while True:
            try:
                self.spool.keep_answer(self.id, whole)
                self.spool.say(self.instance, whole)
                break
            except OSError as error:
                self.text = f"cannot be answered: {error.strerror}"
                log.warning("%s %s", self.id, self.text)
                time.sleep(BEAT_S)
        self.spool.forget(self.id)


def _session_name(project: str) -> str:
    """The DAW's own name for its project, so that `punchin redo` finds the saved one near the take."""
    name = Path(project).name
    return name if name.lower().endswith(".rpp") and len(os.fsencode(name)) <= NAME_BYTES else "session.rpp"


def done(request: RegionRequest, result: journey.Result, seconds: float) -> Fields:
    """The event that a DAW lands: `items` that show takes, `count` takes each. `N.name` is a field of item N.

    regions: those that it holds, from 1. item: its GUID. how: as a take on the item that was there, or else.
    position_s, length_s: of its files, from their first frame. item_s, item_length_s: of the item itself. All in
    project time.
    """
    count = len(result.takes) // len(request.regions)
    items: dict[Path, list[int]] = {}  # regions of one item lie in the same files
    for region in range(len(request.regions)):
        items.setdefault(result.takes[region * count].file, []).append(region)
    landed, fields = _landed_items(result), Fields(items=len(items), count=count, text=_words(result, seconds))
    for n, (file, regions) in enumerate(items.items(), start=1):
        if file not in landed:
            text = f"{file.name} was written, but {result.output.name} does not play it"
            raise PunchinError(text, "punchin doctor")
        of_item = _item_fields(request, result, landed[file], file, regions)
        fields |= {f"{n}.{name}": value for name, value in of_item.items()}
    return {"kind": "done"} | fields


def _item_fields(
    request: RegionRequest, result: journey.Result, item: Item, file: Path, regions: Sequence[int]
) -> Fields:
    from punchin.session import audiofile

    first, count = audiofile.info(file), len(result.takes) // len(request.regions)
    own = {each.guid for track in request.tracks for each in track.items}
    fields = Fields(
        regions=" ".join(str(region + 1) for region in regions),
        item=item.guid,
        how="take" if item.guid in own else request.land if request.land != "take" else "split",
        position_s=repr(item.start_s - item.takes[-1].offset_s),
        length_s=repr(first.frames / first.rate_hz),
        item_s=repr(item.start_s),
        item_length_s=repr(item.length_s),
    )
    for n in range(count):
        made_by, *also = (_made_by(result, region * count + n) for region in regions)
        take = result.takes[regions[0] * count + n]
        fields |= {
            f"file{n + 1}": take.file,
            f"name{n + 1}": take.name,
            f"provenance{n + 1}": json.dumps(
                made_by | ({"also": also} if also else {}), ensure_ascii=True, sort_keys=True
            ),
        }
    return fields


def _made_by(result: journey.Result, index: int) -> dict[str, Any]:
    """What made a take of one region, with what was measured there."""
    from punchin.clients.journey import landing

    return landing.provenance(result.rolled[index]) | {"report": result.takes[index].report.to_json()}


def _landed_items(result: journey.Result) -> dict[Path, Item]:
    """The items of the landed project, by each file that they play."""
    from punchin.session import rpp, rpp_project

    tracks = rpp_project.from_document(result.output, rpp.read(result.output)).tracks
    shown = [(item, take.source) for track in tracks for item in track.items for take in item.takes]
    return {result.output.parent / source.file: item for item, source in shown if source is not None}


def _words(result: journey.Result, seconds: float) -> str:
    count = len(result.takes)
    text = f"{count} take{'s' if count > 1 else ''} in {seconds:.1f} s"
    bad = sum(not take.report.ok for take in result.takes)
    if bad:
        text += f", {bad} over the report's limits: see the take's name"
    if not result.trained:
        text += ", by an untrained model: it is noise"
    return text


def _progress(event: Event, seconds: float) -> str:
    if not event.phase:
        return event.text or event.state
    if not event.total:
        return event.phase
    text = f"{event.phase} {event.done} of {event.total}"
    if 0 < event.done < event.total and seconds > 1.0:
        text += f", about {seconds * (event.total - event.done) / event.done:.0f} s"
    return text
