"""What pytest-benchmark measures in `peers.py`: a clock that shows the samples, one after another."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_now = 0.0
SAMPLES: list[list[float]] = (
    json.loads(Path(os.environ["PEERS_SAMPLES"]).read_text()) if "PEERS_SAMPLES" in os.environ else []
)


def timer() -> float:
    """For `--benchmark-timer`: seconds on the replayed clock."""
    return _now


def replay(samples: list[float]) -> Callable[[], None]:
    """A function that takes as long as the next sample says."""
    following = iter(samples)

    def take() -> None:
        global _now
        _now += next(following)

    return take


@pytest.mark.parametrize("case", range(len(SAMPLES)))
def test_replay(case: int, benchmark: Any) -> None:
    benchmark.pedantic(replay(SAMPLES[case]), rounds=len(SAMPLES[case]), iterations=1)
