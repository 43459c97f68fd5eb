"""Baseline files: `baselines/<device>/<toolchain>/<model>.json`, strict on reading, atomic on writing."""

from __future__ import annotations

from pathlib import Path

from perfgate.errors import DataError
from perfgate.files import BASELINE_LIMIT_BYTES, read_record, record_json, write_text
from perfgate.records import BASELINE_SCHEMA, Baseline, BaselineCase, Environment, Record


class Stored(Record):
    """One promoted case with the environment that it was measured in."""

    case: BaselineCase
    environment: Environment
    path: str


class Baselines(Record):
    """What is stored for one environment: its own toolchain's cases by id, and those of the same backend's
    other toolchains on the same device, which are never compared but explain an INCOMPARABLE."""

    root: str
    cases: dict[str, Stored] = {}
    elsewhere: dict[str, Stored] = {}


def baseline_path(root: Path, environment: Environment, model: str) -> Path:
    return root / environment.device / environment.toolchain / f"{model}.json"


def read_baseline(path: Path) -> Baseline:
    """Read one file. Raises `DataError` that names file and key for anything that is not as written."""
    baseline = read_record(path, Baseline, limit_bytes=BASELINE_LIMIT_BYTES)
    if baseline.model != path.stem:
        raise DataError(f"is the baseline of {baseline.model!r}", where=path, fix="rename it back")
    for case_id, case in baseline.cases.items():
        if case.environment not in baseline.environments:
            raise DataError("names an environment that is not in the file", where=f"{path}: cases.{case_id}")
        lengths = {len(values) for values in case.metrics.values()}
        if len(lengths) != 1 or 0 in lengths or "latency_ns" not in case.metrics:
            raise DataError(
                "needs latency_ns, and metrics of one equal length", where=f"{path}: cases.{case_id}.metrics"
            )
        if min(case.metrics["latency_ns"]) <= 0:
            raise DataError("is not above zero", where=f"{path}: cases.{case_id}.metrics.latency_ns")
    return baseline


def load_baselines(root: Path, environment: Environment) -> Baselines:
    """All baselines that matter to a run in `environment`; an absent folder is an empty set."""
    own = _load_folder(root / environment.device / environment.toolchain)
    backend = environment.toolchain.split("-")[0]
    elsewhere: dict[str, Stored] = {}
    for folder in sorted((root / environment.device).glob(f"{backend}-*")):
        if folder.name != environment.toolchain:
            elsewhere |= _load_folder(folder)
    return Baselines(root=str(root), cases=own, elsewhere=elsewhere)


def _load_folder(folder: Path) -> dict[str, Stored]:
    stored = {}
    for path in sorted(folder.glob("*.json")):
        baseline = read_baseline(path)
        for case_id, case in baseline.cases.items():
            environment = baseline.environments[case.environment]
            stored[case_id] = Stored(case=case, environment=environment, path=str(path))
    return stored


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write atomically, with only the environments that a case still refers to."""
    used = {case.environment for case in baseline.cases.values()}
    kept = {key: value for key, value in baseline.environments.items() if key in used}
    write_text(
        path,
        record_json(
            Baseline(schema=BASELINE_SCHEMA, model=baseline.model, environments=kept, cases=baseline.cases)
        ),
    )
