"""`python -m punchin.clients.cli`, for machines where the `punchin` command is not on the path."""

import sys

from punchin.clients.cli import main

sys.exit(main())
