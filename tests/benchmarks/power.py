"""What slowdowns the gate catches, and what that takes.

    python tests/benchmarks/power.py --out power.json

Delays of true size 0, 1, 2, 3, 5 and 10 % are put into the simulated launches of head (the models and the
histories of `false_alarms.py`). Caught is a REGRESSION; launches are medians, of base + of head, those of the
screen counted; seconds are those that the GPU is held.

Target: caught at least 95 % at 2 %, 99.9 % at 3 %; fresh launches a side at most 6 unchanged, 12 at 2 %.
A head that was built anew, all or a tenth of it, has up to six builds and the wider tolerance of
`perfgate.gate.statistics.build_variance.widened`: what that catches is shown, and has no target. The launches
that choose the best of base's builds are not counted.
"""

from __future__ import annotations

import sys
from typing import Any

import common
import gate_model as gm
import numpy as np
import recordings

from perfgate.gate.statistics.power import INCONCLUSIVE, PASS, REGRESSION, Outcomes

SLOWDOWNS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.10)
TARGET_CAUGHT = {0.02: 0.95, 0.03: 0.999}
TARGET_LAUNCHES = {0.0: 6, 0.02: 12}


def measure(options: common.Options) -> dict[str, Any]:
    models = gm.models(recordings.read(options.data))
    draw = np.random.default_rng(options.seed)
    rows = []
    for world, model in models.items():
        for history in gm.HISTORIES[:2]:
            for slowdown in SLOWDOWNS:
                found = gm.hold(model, history, options.gates, slowdown, draw)
                rows.append(_row(f"{world}: {history.name}", slowdown, found, model.launch_s))
        for luck in gm.LUCK:
            for slowdown in SLOWDOWNS:
                found = gm.hold_rebuilt(model, options.gates, draw, luck, slowdown)
                rows.append(_row(f"{world}: {luck.name}", slowdown, found, model.launch_s))
    return {"models": gm.described(models), "gates": options.gates, "rows": rows}


def _row(world: str, slowdown: float, found: Outcomes, launch_s: float) -> dict[str, Any]:
    fresh = found.base_launches[found.suspect]
    return {
        "world": world,
        "slowdown": slowdown,
        "caught": found.share(REGRESSION),
        "passed": found.share(PASS),
        "inconclusive": found.share(INCONCLUSIVE),
        "suspects": float(found.suspect.mean()),
        "fresh_launches_a_side": float(np.median(fresh)) if len(fresh) else 0.0,
        **gm.cost(found, launch_s),
    }


def met(row: dict[str, Any]) -> str:
    """Whether the row keeps its targets; a dash where it has none."""
    caught, launches = TARGET_CAUGHT.get(row["slowdown"]), TARGET_LAUNCHES.get(row["slowdown"])
    if (caught is None and launches is None) or " built anew" in row["world"]:
        return "-"
    # A screen that passes is a verdict by its own launches; otherwise it is the confirmation's.
    taken = row["fresh_launches_a_side"] if row["suspects"] > 0.5 else row["head_launches"]
    return "yes" if row["caught"] >= (caught or 0) and taken <= (launches or taken) else "NO"


def show(found: dict[str, Any]) -> str:
    head = ("", "slower by", "caught", "PASS", "undecided", "fresh a side", "all launches", "GPU s", "met")
    rows = [
        (
            row["world"],
            common.percent(row["slowdown"], 0),
            common.percent(row["caught"], 2),
            common.percent(row["passed"], 2),
            common.percent(row["inconclusive"], 2),
            f"{row['fresh_launches_a_side']:.0f}",
            f"{row['base_launches']:.0f}+{row['head_launches']:.0f}",
            f"{row['gpu_s']:.0f}",
            met(row),
        )
        for row in found["rows"]
    ]
    return "\n\n".join((common.text_table(head, rows), gm.sources(found["models"])))


if __name__ == "__main__":
    count = common.option("--gates", type=int, default=20_000, help="a row (default: %(default)s)")
    run = common.table_of("power", measure, show)
    sys.exit(common.main(run, __doc__, gm.options(count, "power.json")))
