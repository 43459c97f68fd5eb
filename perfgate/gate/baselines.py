"""Baseline files: `baselines/<device>/<toolchain>/<model>.json`, strict on reading, atomic on writing."""

from __future__ import annotations

import contextlib
from datetime import date
from pathlib import Path

import msgspec

from perfgate.errors import DataError, RefusedError
from perfgate.records import (
    Baseline,
    BaselineCase,
    Environment,
    Manifest,
    MetricColumns,
    Record,
    metrics_fault,
)
from perfgate.util.files import BASELINE_LIMIT_BYTES, read_record, record_json, write_text

# A quarter: drivers and machines have moved on by then. `perfgate alert` warns of the same age.
STALE_DAYS = 90


class Stored(Record):
    """One promoted case with the environment that it was measured in."""

    case: BaselineCase
    environment: Environment
    path: str


class Baselines(Record):
    """What is stored for one environment: its own toolchain's cases by id, and those of the same backend's
    other toolchains on the same device, which are never compared but explain an INCOMPARABLE. `manifests` say
    what the scripts of these models read."""

    root: str
    cases: dict[str, Stored] = {}
    manifests: tuple[Manifest, ...] = ()
    elsewhere: dict[str, Stored] = {}


def columns_by_run(case: BaselineCase) -> list[MetricColumns]:
    """The columns of each run that was promoted together."""
    found, start = [], 0
    for launches in [run.launches for run in case.runs] or [len(case.metrics["latency_ns"])]:
        found.append({name: values[start : start + launches] for name, values in case.metrics.items()})
        start += launches
    return found


def runs_of(case: BaselineCase) -> list[tuple[float, ...]]:
    """The launch medians (ns) of each run that was promoted together."""
    return [part["latency_ns"] for part in columns_by_run(case)]


def days_of(case: BaselineCase) -> int:
    """On how many days they were taken."""
    return len({run.created[:10] for run in case.runs}) or 1


def stale(baselines: Baselines, today: date) -> tuple[str, ...]:
    """What is to be said of baselines that nobody has looked at for a long time, the oldest first."""
    aged = []
    for case_id, stored in baselines.cases.items():
        with contextlib.suppress(ValueError):
            days = (today - date.fromisoformat(stored.case.promoted[:10])).days
            aged += [(days, case_id)] if days > STALE_DAYS else []
    if not aged:
        return ()
    aged.sort(reverse=True)
    days, case_id = aged[0]
    more = f" and {len(aged) - 1} more" if len(aged) > 1 else ""
    return (f"stale baselines: {case_id}, promoted {days} days ago{more}; measure again, then promote",)


def timing_path(baseline: Path, model: str, precision: str) -> Path:
    """The timing cache of the engine that serves a model's cases of one precision: beside the baseline."""
    return baseline.parent / f"{model}.{precision}.timing"


def baseline_path(root: Path, environment: Environment, model: str) -> Path:
    """Raises `DataError` for a name that would leave `root`; names may come from a results file."""
    for name in (environment.device, environment.toolchain, model):
        if "/" in name or "\0" in name or name.startswith("."):
            raise DataError(f"{name!r} cannot name a baseline's file", where=root)
    return root / environment.device / environment.toolchain / f"{model}.json"


def read_baseline(path: Path) -> Baseline:
    """Read one file. Raises `DataError` that names file and key for anything that is not as written."""
    baseline = read_record(path, Baseline, limit_bytes=BASELINE_LIMIT_BYTES)
    if baseline.model != path.stem:
        raise DataError(f"is the baseline of {baseline.model!r}", where=path, fix="rename it back")
    for case_id, case in baseline.cases.items():
        if case.environment not in baseline.environments:
            raise DataError("names an environment that is not in the file", where=f"{path}: cases.{case_id}")
        if wrong := metrics_fault(case.metrics):
            raise DataError(wrong, where=f"{path}: cases.{case_id}.metrics")
        launches = len(case.metrics["latency_ns"])
        if case.runs and sum(run.launches for run in case.runs) != launches:
            raise DataError(
                f"its runs do not add up to {launches} launches", where=f"{path}: cases.{case_id}.runs"
            )
    return baseline


def load_baselines(root: Path, environment: Environment) -> Baselines:
    """All baselines that matter to a run in `environment`; an absent folder is an empty set."""
    own, manifests = _load_folder(root / environment.device / environment.toolchain)
    backend = environment.toolchain.split("-")[0]
    elsewhere: dict[str, Stored] = {}
    for folder in sorted((root / environment.device).glob(f"{backend}-*")):
        if folder.name != environment.toolchain:
            elsewhere |= _load_folder(folder)[0]
    return Baselines(root=str(root), cases=own, manifests=tuple(manifests), elsewhere=elsewhere)


def _load_folder(folder: Path) -> tuple[dict[str, Stored], list[Manifest]]:
    stored: dict[str, Stored] = {}
    manifests: list[Manifest] = []
    for path in sorted(folder.glob("*.json")):
        baseline = read_baseline(path)
        manifests += baseline.manifests
        for case_id, case in baseline.cases.items():
            environment = baseline.environments[case.environment]
            stored[case_id] = Stored(case=case, environment=environment, path=str(path))
    return stored, manifests


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write atomically, with only the environments that a case still refers to.

    Raises `RefusedError` for a record that could not be read back, and writes nothing then.
    """
    used = {case.environment for case in baseline.cases.values()}
    kept = {key: value for key, value in baseline.environments.items() if key in used}
    text = record_json(msgspec.structs.replace(baseline, environments=kept))
    try:
        msgspec.json.decode(text, type=Baseline)
    except msgspec.MsgspecError as error:
        raise RefusedError(f"would not be a valid baseline: {error}", where=path) from error
    write_text(path, text)
