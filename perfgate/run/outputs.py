"""What a run leaves in its folder: results, report, timing caches, and checkpoints while it measures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import msgspec

from perfgate.errors import DataError
from perfgate.records import Outcome, RunResult
from perfgate.report import render
from perfgate.util.files import RESULTS_LIMIT_BYTES, read_record, record_json, write_text

RESULTS_NAME = "results.json"
REPORT_NAME = "report.html"
TIMING_NAME = "timing"
_CHECKPOINT_S = 10.0


class Checkpoint:
    """Writes what was measured so far, at most every ten seconds, so that a killed run loses little."""

    def __init__(self, result: RunResult, path: Path) -> None:
        self._result, self._path, self._last = result, path, time.monotonic()

    def __call__(self, outcomes: Mapping[str, Outcome]) -> None:
        # Suspects are measured in a second pass: what the first one told of the others stays.
        self._result = with_outcomes(self._result, outcomes)
        if time.monotonic() - self._last >= _CHECKPOINT_S:
            self._last = time.monotonic()
            write_text(self._path, record_json(self._result))


def with_outcomes(result: RunResult, outcomes: Mapping[str, Outcome]) -> RunResult:
    """The result with these outcomes put in by case id."""
    cases = tuple(
        msgspec.structs.replace(case, outcome=outcomes.get(case.case.id, case.outcome))
        for case in result.cases
    )
    return msgspec.structs.replace(result, cases=cases)


def read_results(path: Path) -> RunResult:
    """Read a results file strictly and within bounds. Raises `DataError`."""
    result = read_record(path, RunResult, limit_bytes=RESULTS_LIMIT_BYTES)
    ids = Counter(case.case.id for case in result.cases)
    if repeated := next((case_id for case_id, count in ids.items() if count > 1), None):
        raise DataError(f"has two cases {repeated!r}", where=path, fix="one of them would hide the other")
    return result


def write_outputs(result: RunResult, out: Path, language: str = "en") -> list[Path]:
    """Write `results.json` and `report.html`; returns their paths. Raises `OutputError`."""
    files = {out / RESULTS_NAME: record_json(result), out / REPORT_NAME: render(result, "html", language)}
    for path, text in files.items():
        write_text(path, text)
    return list(files)
