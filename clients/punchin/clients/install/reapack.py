"""`python -m punchin.clients.install.reapack`: the index that REAPER's package browser ReaPack reads.

The index names each script's URL at one tag of a Git host. Whoever installs this way still runs
`punchin install reaper` once: bridge and settings are not REAPER's, and the scripts look for them in its script folder.
"""

from __future__ import annotations

import argparse
import sys
import xml.etree.ElementTree as Tree
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from punchin.clients.install import manifest
from punchin.clients.install.reaper import scripts
from punchin.protocol.version import PACKAGE

FOLDER = "clients/punchin/clients/reaper"
LISTED = "Punchin - "  # scripts by this name are actions, the others are what they load


def index(base_url: str, version: str, at: datetime) -> bytes:
    """The index as XML. base_url: of the repository's files at the tag, without a slash at its end."""
    root = Tree.Element("index", version="1", name="Punchin")
    category = Tree.SubElement(root, "category", name="Punchin")
    package = Tree.SubElement(category, "reapack", name="Punchin.lua", type="script", desc="Punchin")
    text = Tree.SubElement(Tree.SubElement(package, "metadata"), "description")
    text.text = "Select bars, press a key: the region comes back as a new take. Run `punchin install reaper` as well."
    when = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = Tree.SubElement(package, "version", name=version, author="Punchin", time=when)
    for name in sorted(scripts()):
        source = Tree.SubElement(found, "source", file=name)
        if name.startswith(LISTED):
            source.set("main", "main")
        source.text = f"{base_url}/{quote(f'{FOLDER}/{name}')}"
    Tree.indent(root)
    return Tree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def main(arguments: list[str] | None = None) -> int:
    """Write the index file."""
    parser = argparse.ArgumentParser(prog="make reapack", description="Write ReaPack's index of the REAPER scripts.")
    parser.add_argument("--url", required=True, help="of the repository's files at the tag of this version")
    parser.add_argument("--output", type=Path, default=Path("index.xml"))
    given = parser.parse_args(arguments)
    manifest.write_whole(given.output, index(given.url.rstrip("/"), PACKAGE, datetime.now(UTC)))
    print(given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
