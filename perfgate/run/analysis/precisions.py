"""All precisions of one model at once: built, checked, measured, and looked into layer by layer."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import msgspec

from perfgate.errors import CaseError, UsageError
from perfgate.model.precision.layer_error import LayersRequest, worst_layers
from perfgate.model.spec import ModelSpec
from perfgate.records import (
    PRECISION_SCHEMA,
    Case,
    CaseResult,
    LayerLoss,
    Measured,
    NotRun,
    Precision,
    PrecisionRow,
    PrecisionTable,
    Verdict,
)
from perfgate.run.pipeline import Pipeline

LAYER_SAMPLES = 2


def compare_precisions(
    pipeline: Pipeline, spec: ModelSpec, *, precisions: Sequence[str], shape: str, most: int
) -> PrecisionTable:
    """One row a precision, at one shape (`b8`; the spec's first where it is empty). Raises `UsageError`."""
    wanted = tuple(one for one in get_args(Precision) if not precisions or one in precisions)
    spec = msgspec.structs.replace(spec, precisions=wanted)
    selected = [(spec, case) for case in _one_shape(pipeline.cases(spec), shape)]
    result = pipeline.run(selected)
    if pipeline.interrupted:
        raise KeyboardInterrupt
    return PrecisionTable(
        schema=PRECISION_SCHEMA,
        model=spec.name,
        backend=pipeline.backend.name,
        device=pipeline.backend.device(),
        rows=tuple(
            _row(case, outcome, _layers(pipeline, spec, case, outcome, most))
            for (_, case), outcome in zip(selected, result.cases, strict=True)
        ),
    )


def _one_shape(cases: list[Case], shape: str) -> list[Case]:
    """One case a precision: the first that has the shape."""
    fitting = [case for case in cases if not shape or shape in case.id.split("/")[2:]]
    if not fitting:
        shapes = sorted({case.id.split("/")[2] for case in cases if case.id.count("/") > 1})
        raise UsageError(
            f"no case has the shape {shape!r}", where="--shape", fix=f"one of: {', '.join(shapes)}"
        )
    return list({case.precision: case for case in reversed(fitting)}.values())[::-1]


def _layers(
    pipeline: Pipeline, spec: ModelSpec, case: Case, outcome: CaseResult, most: int
) -> tuple[LayerLoss, ...]:
    """The layers that lose most; none where the case has no graph of its own or it cannot be looked into."""
    if case.precision == "fp32" or not isinstance(outcome.outcome, Measured):
        return ()
    if not most or not pipeline.backend.takes_graph():
        return ()
    pipeline.progress.say(f"{case.id}: comparing layers")
    asked = pipeline.graphs(spec, case)
    if asked is None:
        return ()
    request = LayersRequest(
        reference=asked.onnx,
        emitted=asked.emitted,
        data=msgspec.structs.replace(asked.data, samples=LAYER_SAMPLES),
        most=most,
    )
    try:
        return worst_layers(request, timeout_s=pipeline.settings.launch_timeout_s)
    except CaseError as error:
        pipeline.progress.say(f"{case.id}: layers were not compared: {error.what}")
        return ()


def _row(case: Case, result: CaseResult, layers: tuple[LayerLoss, ...]) -> PrecisionRow:
    judgement, outcome = result.judgement, result.outcome
    measured = outcome if isinstance(outcome, Measured) else None
    launches = measured.launches if measured else ()
    memory = [one.peak_memory_bytes for one in launches if one.peak_memory_bytes]
    return PrecisionRow(
        precision=case.precision,
        case=case.id,
        verdict=judgement.verdict if judgement else Verdict.ERROR,
        reason=outcome.reason if isinstance(outcome, NotRun) else (judgement.reason if judgement else ""),
        latency_ns=statistics.median(launch.median_ns for launch in launches) if launches else None,
        engine_bytes=measured.engine.engine_bytes if measured and measured.engine else None,
        memory_bytes=statistics.median(memory) if memory else None,
        accuracy=result.accuracy,
        layers=layers,
    )


def named_spec(specs: Sequence[ModelSpec], name: str) -> ModelSpec:
    """The spec of a model by its name. Raises `UsageError`."""
    for spec in specs:
        if spec.name == name or Path(spec.path) == Path(name):
            return spec
    known = ", ".join(spec.name for spec in specs) or "none"
    raise UsageError(f"no model is named {name!r}", where="MODEL", fix=f"one of: {known}")
