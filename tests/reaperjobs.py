"""Jobs of the fake REAPER's desk: asked for, and what becomes of them."""

from fakereaper.model import Project


def asked(desk, action="Repaint selection (last preset)", **words):
    """The id of a job that was asked for, with the watcher running."""
    desk.remember_words(**words)
    desk.press(action)
    desk.host.tick(30)
    return desk.requests()[-1]["id"]


def names(item):
    return [take.name for take in item.takes]


def close_project(desk):
    closed = desk.host.projects.pop()
    desk.host.projects.append(Project("/other.rpp"))
    return closed
