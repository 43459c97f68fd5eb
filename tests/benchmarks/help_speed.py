"""How long `perfgate --help` takes, beside an interpreter that does nothing.

    python tests/benchmarks/help_speed.py --times 20

Target: 0.3 s of wall time for the fastest of 20, on a machine that does nothing else.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import common

from perfgate.util.process import package_environment

TARGET_S = 0.3
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "perfgate --help": ["-m", "perfgate", "--help"],
    "perfgate run --help": ["-m", "perfgate", "run", "--help"],
}


def seconds(words: list[str], times: int) -> list[float]:
    """Wall seconds of each start."""
    taken = []
    for _ in range(times):
        started = time.monotonic()
        subprocess.run(
            [sys.executable, *words], check=True, capture_output=True, env=package_environment(), timeout=60
        )
        taken.append(time.monotonic() - started)
    return taken


def run(options: common.Options) -> int:
    missed = False
    for name, words in COMMANDS.items():
        taken = seconds(words, options.times)
        missed |= min(taken) > TARGET_S
        print(f"{name:22} fastest {min(taken):.3f} s, median {statistics.median(taken):.3f} s")
    print("target missed" if missed else "target met")
    return int(missed)


if __name__ == "__main__":
    times = common.option("--times", type=int, default=20)
    sys.exit(common.main(run, __doc__.split("\n")[0], [times]))
