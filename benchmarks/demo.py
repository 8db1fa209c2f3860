"""How long is a newcomer's first region, and how much of it is waiting for things that are there the second time?

Prints the seconds of `punchin demo` on a fresh home and again, and their ratio. Budgets: 25 s and 10 s.
"""

import os
import subprocess
import sys
import tempfile
from time import perf_counter

BUDGETS_S = (25.0, 10.0)


def main() -> int:
    """Run the demo twice in a home of its own."""
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"PUNCHIN_HOME": f"{folder}/home"}
        punchin = [sys.executable, "-m", "punchin.clients.cli"]
        seconds = []
        for _ in BUDGETS_S:
            began = perf_counter()
            subprocess.run([*punchin, "demo", "--out", f"{folder}/demo"], env=env, check=True, capture_output=True)
            seconds.append(perf_counter() - began)
        subprocess.run([*punchin, "stop"], env=env, check=True, capture_output=True)
    first, second = seconds
    print(
        f"first / second {first / second:.1f}x  ({first:.1f} s of {BUDGETS_S[0]:g}, {second:.1f} s of {BUDGETS_S[1]:g})"
    )
    return int(any(took > budget for took, budget in zip(seconds, BUDGETS_S, strict=True)))


if __name__ == "__main__":
    sys.exit(main())
