"""The way of a region: captured from a session, made anew by the daemon's engine, measured, and landed.

    from punchin.clients.journey import Prompt, Request, perform
    result = perform(Request(task="repaint", session=Path("song.rpp"), track="Keys", bars=(5, 8),
                             prompt=Prompt(text="warm electric piano"), seed=7), listener)

Modules in the order of the way: `request`, `window`, `capture`, `groups`, `ordering`, `plan`, `waiting`, `returning`,
`rolling`, `kept`, `landing`, `ending`, `travel`; `making` is the short way for music from a prompt alone.
"""

from __future__ import annotations

from punchin.clients.journey.landing import Result
from punchin.clients.journey.request import Prompt, Request
from punchin.clients.journey.travel import land, look, perform, perform_all
from punchin.clients.journey.waiting import Listener

__all__ = ["Listener", "Prompt", "Request", "Result", "land", "look", "perform", "perform_all"]
