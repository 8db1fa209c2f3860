"""The two versions: the package's, for people; the protocol's, for programs."""

from typing import Final

PACKAGE: Final = "0.1.0"
PROTOCOL: Final = 2  # rises when an old peer would misread a message; unknown fields are not such a case
