"""Recorded profiled loads, explained again: what was found when they were taken is found now.

`data/records_*.json` were written by `tests/benchmarks/explain_gpu.py`; a file more is a test more.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from explain_sides import CASE

from perfgate.engine.interface import LayerTimes
from perfgate.gate.explain.explain import Side, explain_case
from perfgate.measure.layer_profile import LEAST_LOADS
from perfgate.records import EngineFacts

FILES = sorted((Path(__file__).parent / "data").glob("records_*.json"))
RECORDS = [
    pytest.param(case, id=f"{path.stem}-{name}")
    for path in FILES
    for name, case in json.loads(path.read_text())["cases"].items()
]


def side(record: dict[str, Any]) -> tuple[Side, list[LayerTimes]]:
    facts = EngineFacts(digest=record["digest"], engine_bytes=1, layer_record=record["layers"])
    times = record["loads_ns"]
    count = len(next(iter(times.values())))
    loads = [
        LayerTimes(layers_ns={layer: float(row[i]) for layer, row in times.items()}, queries=1)
        for i in range(count)
    ]
    return Side(facts=facts), loads


@pytest.mark.parametrize("record", RECORDS)
def test_the_recorded_cause_is_found_again(record: dict[str, Any]) -> None:
    (base, base_loads), (head, head_loads) = side(record["base"]), side(record["head"])
    found = explain_case(CASE, base, head, profile=lambda: (base_loads, head_loads))
    assert found.kind == record["kind"]
    assert found.layers


@pytest.mark.parametrize("record", RECORDS)
def test_a_recorded_base_against_itself_explains_nothing(record: dict[str, Any]) -> None:
    """Every way to part its loads; the engines' bytes are said to differ, so that times alone decide."""
    base, loads = side(record["base"])
    assert base.facts is not None
    other = Side(facts=EngineFacts(digest="0" * 64, engine_bytes=1, layer_record=base.facts.layer_record))
    for start in range(len(loads)):
        turned = loads[start:] + loads[:start]
        # Never fewer than a real comparison takes: of five loads the two sides share one.
        half = max(LEAST_LOADS, len(turned) // 2)
        parts = turned[:half], turned[-half:]
        found = explain_case(CASE, base, other, profile=lambda parts=parts: parts)  # type: ignore[misc]
        assert found.kind == "nothing-changed"
        assert not found.layers
