"""What a verdict costs in GPU seconds, and what a fixed number of launches would cost.

    python tests/benchmarks/cost.py --out cost.json

One commit touches no model (UNCHANGED by digest: nothing is launched), a harmless one does, and two are
2 % and 3 % slower; each by this gate and by a fixed scheme of 12 launches of base and 12 of head, judged by
Welch's interval at the same certainty. By the models of `false_alarms.py`; a launch takes the seconds that
are recorded, or 4 s. Builds are not counted: both schemes need the same ones.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import common
import gate_model as gm
import numpy as np
import recordings

from perfgate.gate.statistics.power import REGRESSION
from perfgate.gate.statistics.sequential import ALPHA

FIXED = 12
COMMITS = (("harmless", 0.0), ("2 % slower", 0.02), ("3 % slower", 0.03))


def fixed(model: gm.Model, gates: int, slowdown: float, draw: Any) -> float:
    """The share that a fixed scheme calls slower than *ignore*, at the gate's own ALPHA."""
    from scipy.special import stdtrit

    base = model.launches(draw, gates, FIXED)
    head = model.launches(draw, gates, FIXED) + math.log1p(slowdown)
    se = np.sqrt((base.var(axis=1, ddof=1) + head.var(axis=1, ddof=1)) / FIXED)
    low = head.mean(axis=1) - base.mean(axis=1) - stdtrit(2 * FIXED - 2, 1 - ALPHA) * se
    return float((low > math.log1p(gm.TOLERANCE.ignore)).mean())


def measure(options: common.Options) -> dict[str, Any]:
    models = gm.models(recordings.read(options.data))
    draw = np.random.default_rng(options.seed)
    rows = []
    for world, model in models.items():
        price = 2 * FIXED * model.launch_s
        rows.append({"world": world, "commit": "no model touched", "gpu_s": 0.0, "fixed_gpu_s": price})
        for history in gm.HISTORIES[:2]:
            for commit, slowdown in COMMITS:
                found = gm.hold(model, history, options.gates, slowdown, draw)
                rows.append(
                    {
                        "world": f"{world}: {history.name}",
                        "commit": commit,
                        **gm.cost(found, model.launch_s),
                        "red": found.share(REGRESSION),
                        "fixed_gpu_s": price,
                        "fixed_red": fixed(model, options.gates, slowdown, draw),
                    }
                )
    return {"models": gm.described(models), "gates": options.gates, "rows": rows}


def show(found: dict[str, Any]) -> str:
    head = ("", "commit", "GPU s", "95 % within", "red", f"fixed {FIXED}+{FIXED}: GPU s", "red")
    rows = [
        (
            row["world"],
            row["commit"],
            f"{row['gpu_s']:.0f}",
            f"{row.get('gpu_s_p95', 0):.0f}",
            common.percent(row.get("red", 0.0)),
            f"{row['fixed_gpu_s']:.0f}",
            common.percent(row.get("fixed_red")),
        )
        for row in found["rows"]
    ]
    return "\n\n".join((common.text_table(head, rows), gm.sources(found["models"])))


if __name__ == "__main__":
    count = common.option("--gates", type=int, default=20_000, help="a row (default: %(default)s)")
    run = common.table_of("cost", measure, show)
    sys.exit(common.main(run, __doc__, gm.options(count, "cost.json")))
