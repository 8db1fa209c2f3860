"""A fake REAPER with Punchin installed into it, on both Lua generations that REAPER embeds."""

import pytest
from fakereaper.desk import Desk


@pytest.fixture(params=["5.3", "5.4"])
def desk(request, tmp_path):
    """REAPER 6.24 embeds Lua 5.3, REAPER 7 Lua 5.4."""
    version = "6.24" if request.param == "5.3" else "7.60"
    desk = Desk(tmp_path, lua=request.param, version=version)
    yield desk
    desk.host.quit()


@pytest.fixture
def seven(tmp_path):
    """REAPER 7 alone."""
    desk = Desk(tmp_path)
    yield desk
    desk.host.quit()
