"""Launches recorded on devices: files of loads, gates of `real_aa.py`, joined to a visit to a GPU each.

A visit has the form of a file of loads (`data/levels-*.json`, see README.md): `device`, `case`,
`environment`, `builds` (engines by digest), `loads` (launches: build, process, load, `median_ns`, `invalid`),
`costs_s`, and `machine`, which GPUs of one host share (files from before it was recorded have a name given by
hand, or none: a GPU, a machine).
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import common

Visit = dict[str, Any]
DATA = common.HERE / "data"
LEVELS, GATES = (f"perfgate-trt/benchmark-{kind}/v1" for kind in ("levels", "real-gates"))
# Heads of `real_aa.py` that are base's model: the others are slower by what was planted. `warm` is left out:
# an engine whose tactics base's timing cache told is no draw of a build.
_SAME_MODEL = ("same", "rebuilt")


def read(folder: Path = DATA) -> list[Visit]:
    """All visits to GPUs that are kept in a folder, in the order of their files."""
    visits = []
    for path in sorted(folder.rglob("*.json")):
        file = json.loads(path.read_text())
        if file.get("schema") == LEVELS:
            visits.append(file)
        elif file.get("schema") == GATES:
            visits.append(of_gates(file))
    return joined(visits)


def of_gates(file: Visit) -> Visit:
    """The launches of gates that were held: base's, and those of heads that are the same model."""
    digests: list[str] = [file["engines"]["base"]["digest"]]
    rows, seconds = [], []
    for number, gate in enumerate(file["gates"]):
        sides = {"base": gate["base_ns"]}
        if gate["head_name"] in _SAME_MODEL:
            sides[gate["head_name"]] = gate["head_ns"]
        for name, medians in sides.items():
            digest = file["engines"][name]["digest"]
            if digest not in digests:
                digests.append(digest)
            build = digests.index(digest)
            rows += [
                {"build": build, "process": number, "load": 0, "median_ns": median, "invalid": ""}
                for median in medians
            ]
        launches = len(gate["base_ns"]) + len(gate["head_ns"]) + len(gate["disturbed"])
        seconds.append(gate["seconds"] / launches)
    # `fit` adds the half second of samples; a gate's launch is timed whole.
    cost_s = max(0.0, statistics.median(seconds) - 0.5)
    return {
        **{key: file[key] for key in ("date", "machine", "device", "case", "environment") if key in file},
        "builds": [{"digest": digest} for digest in digests],
        "loads": rows,
        "costs_s": {"process": cost_s, "load": 0.0},
    }


def joined(visits: Iterable[Visit]) -> list[Visit]:
    """One visit for all files of one GPU, case and day: its engines are known by digest."""
    found: dict[tuple[str, ...], Visit] = {}
    for number, visit in enumerate(visits):
        gpu = str(visit.get("environment", {}).get("uuid", number))
        place = gpu, str(visit.get("case", "")), str(visit.get("date", ""))[:10]
        if place not in found:
            found[place] = {**visit, "builds": [], "loads": []}
        one = found[place]
        digests = [build["digest"] for build in one["builds"]]
        for build in visit["builds"]:
            if build["digest"] not in digests:
                digests.append(build["digest"])
                one["builds"].append(build)
        one["loads"] += [
            {**row, "build": digests.index(visit["builds"][row["build"]]["digest"])} for row in visit["loads"]
        ]
    return list(found.values())
