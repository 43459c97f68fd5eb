"""How often the gate cries wolf when nothing changed.

    python tests/benchmarks/false_alarms.py --out false_alarms.json

Every gate's head is exactly as fast as its base. Simulated from the model that is fitted to the recordings
in `tests/benchmarks/data/`, and from what was seen on three H200s (clusters, launches, builds, days and
machines: see `gate_model.py`), for three histories; with head, or both sides, built anew without a timing
cache, up to six builds, `pick = "best"`; on machines less kind (clusters twice as far apart; one launch in
ten in the slow one; normal launches; builds further apart); at the very border, a head slower by *ignore*;
and by bootstrap over the recorded GPUs, where there are three. Bounds are exact, one-sided, 95 %.

Target: REGRESSION at most 0.02 %, INCONCLUSIVE at most 0.5 %.
"""

from __future__ import annotations

import sys
from typing import Any

import common
import gate_model as gm
import msgspec
import numpy as np
import recordings

from perfgate.gate.statistics.noise import BUILD_CV

TARGET_RED, TARGET_OPEN = 2e-4, 5e-3


def measure(options: common.Options) -> dict[str, Any]:
    files = recordings.read(options.data)
    models, hosts = gm.models(files), gm.residuals(files)
    draw = np.random.default_rng(options.seed)
    rows = []
    for world, model in models.items():
        for one in gm.HISTORIES:
            found = gm.hold(model, one, options.gates, 0.0, draw)
            rows.append(gm.alarm_row(f"{world}: {one.name}", found, model.launch_s))
        for luck in gm.LUCK:
            # Six slow builds in a row are a chance of 6 in 100,000: fewer gates than this would not show it.
            rebuilt = gm.hold_rebuilt(model, 5 * options.gates, draw, luck)
            rows.append(gm.alarm_row(f"{world}: {luck.name}", rebuilt, model.launch_s))
    model, first = models["as on three H200s"], gm.HISTORIES[0]
    for name, change in (
        ("clusters 3 % apart", {"gap": 0.03, "slow": 0.5}),
        ("one launch in ten slow", {"gap": 0.015, "slow": 0.1}),
        ("no clusters, CV 0.7 %", {"gap": 0.0, "within": 0.007}),
    ):
        other = msgspec.structs.replace(model, **change)
        found = gm.hold(other, first, options.gates, 0.0, draw)
        rows.append({**gm.alarm_row(f"unkind: {name}", found, model.launch_s), "beyond": True})
    recorded = next(iter(models.values()))
    for more in (1.33, 1.8):  # the second is beyond the upper end of the 95 % interval of what was recorded
        apart = msgspec.structs.replace(recorded, build=BUILD_CV * more)
        found = gm.hold_rebuilt(apart, options.gates, draw, gm.LUCK[-1])
        name = f"unkind: builds {common.percent(apart.build, 1)} apart, {gm.LUCK[-1].name}"
        rows.append({**gm.alarm_row(name, found, model.launch_s), "beyond": True})
    border = gm.hold(model, first, options.gates, gm.TOLERANCE.ignore, draw)
    rows.append({**gm.alarm_row("at the border, 0.5 % slower", border, model.launch_s), "beyond": True})
    if len(hosts) >= 3:
        found = gm.hold_recorded(hosts, options.gates, 0.0, draw)
        rows.append(gm.alarm_row(f"bootstrap over {len(hosts)} GPUs", found, recorded.launch_s))
    return {"models": gm.described(models), "rows": rows}


def show(found: dict[str, Any]) -> str:
    head = ("nothing changed", "gates", "REGRESSION", "at most", "INCONCLUSIVE", "at most", "launches", "met")
    rows = []
    for row in found["rows"]:
        met = row["regression_upper"] <= TARGET_RED and row["inconclusive_upper"] <= TARGET_OPEN
        rows.append(
            (
                row["what"],
                row["gates"],
                row["regression"],
                common.at_most(row["regression_upper"], 3),
                row["inconclusive"],
                common.at_most(row["inconclusive_upper"], 3),
                f"{row['base_launches']:.0f}+{row['head_launches']:.0f}",
                "-" if row.get("beyond") else ("yes" if met else "NO"),
            )
        )
    return "\n\n".join((common.text_table(head, rows), gm.sources(found["models"])))


if __name__ == "__main__":
    count = common.option("--gates", type=int, default=40_000, help="a row (default: %(default)s)")
    run = common.table_of("false-alarms", measure, show)
    sys.exit(common.main(run, __doc__, gm.options(count, "false_alarms.json")))
