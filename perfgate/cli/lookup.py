"""What commands look up: a case by its id, the project's history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfgate.cli.options import load
from perfgate.errors import PerfgateError, UsageError

if TYPE_CHECKING:
    from perfgate.history.store import History
    from perfgate.model.spec import ModelSpec
    from perfgate.records import Case, CaseResult, RunResult
    from perfgate.run.pipeline import Pipeline


def pipeline_of(case: str, progress: Any, flags: dict[str, Any]) -> tuple[Pipeline, tuple[ModelSpec, Case]]:
    """The pipeline of these flags, with the case of this id. Raises `UsageError` that names all."""
    from perfgate.run.pipeline import Pipeline

    settings = load(flags)
    pipeline = Pipeline(settings, progress)
    plan = pipeline.plan([settings.path("models")])
    for spec, one in plan:
        if one.id == case:
            return pipeline, (spec, one)
    ids = ", ".join(one.id for _, one in plan)
    raise UsageError(f"no case is named {case!r}", where="CASE", fix=f"one of: {ids}")


def case_of(run: RunResult, case: str, where: str) -> CaseResult:
    """A case of a results file by its id. Raises `UsageError` that names those there are."""
    found = next((result for result in run.cases if result.case.id == case), None)
    if found is None:
        ids = ", ".join(result.case.id for result in run.cases)[:1000]
        raise UsageError(f"no case is named {case!r}", where=where, fix=f"one of: {ids}")
    return found


def open_history(database: str | None, *, must_exist: bool = False) -> History:
    """The history that is named, or the project's own."""
    from perfgate.history import store

    return store.open_history(load({}).database(database), must_exist=must_exist)


def versions_here() -> dict[str, str]:
    """What runs here; a library that is not there has no entry."""
    from perfgate.engine import get_backend
    from perfgate.image.pins import found_versions

    try:
        return found_versions(get_backend("tensorrt", "auto").versions())
    except PerfgateError:
        return found_versions({})
