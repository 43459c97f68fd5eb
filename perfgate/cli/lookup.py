"""What commands look up: a case by its id, the project's history."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from perfgate.cli.options import load
from perfgate.errors import PerfgateError, UsageError

if TYPE_CHECKING:
    from perfgate.history.store import History
    from perfgate.model.spec import ModelSpec
    from perfgate.records import Case, CaseResult, RunResult
    from perfgate.run.pipeline import Pipeline

T = TypeVar("T")


@contextlib.contextmanager
def pipeline_of(case: str, flags: dict[str, Any]) -> Iterator[tuple[Pipeline, tuple[ModelSpec, Case]]]:
    """The pipeline of these flags, with the case of this id; its progress is shown meanwhile. Raises
    `UsageError` that names those there are."""
    from perfgate.run.pipeline import Pipeline
    from perfgate.util.progress import make_progress

    settings = load(flags)
    with make_progress() as progress:
        pipeline = Pipeline(settings, progress)
        plan = pipeline.plan([settings.path("models")])
        yield pipeline, _named({one.id: (spec, one) for spec, one in plan}, case, "CASE")


def case_of(results: Path, case: str) -> tuple[RunResult, CaseResult]:
    """A results file, and its case of this id. Raises `UsageError` that names those there are."""
    from perfgate.run.outputs import read_results

    run = read_results(results)
    return run, _named({one.case.id: one for one in run.cases}, case, str(results))


def _named(cases: Mapping[str, T], case: str, where: str) -> T:
    if case not in cases:
        ids = ", ".join(cases)[:1000]
        raise UsageError(f"no case is named {case!r}", where=where, fix=f"one of: {ids}")
    return cases[case]


def open_history(database: str | None, *, must_exist: bool = False) -> History:
    """The history that is named, or the project's own."""
    from perfgate.history import store

    return store.open_history(load({}).database(database), must_exist=must_exist)


def versions_here() -> dict[str, str]:
    """What runs here; a library that is not there has no entry."""
    from perfgate.engine import get_backend
    from perfgate.image.lock import found_versions

    try:
        return found_versions(get_backend("tensorrt", "auto").versions())
    except PerfgateError:
        return found_versions({})
