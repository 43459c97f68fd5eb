"""Two stacks' results with several batch sizes, and the inputs of a case, small enough to check by hand."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
from value_runs import case, result, run

from perfgate.records import EngineFacts, Launch, Measured, Precision, RunResult, Slo, Stages, Tf32
from perfgate.value.assumptions import CaseTerms, Inputs, parse_inputs, parse_prices, terms

DATA = Path(__file__).resolve().parents[1] / "value" / "data"
SHIPPED = Path(__file__).resolve().parents[2] / "perfgate" / "value" / "prices.toml"
TODAY = date(2026, 11, 24)
# Milliseconds by batch size, as an eager network and its engine might take.
EAGER = {1: 6.0, 8: 8.0, 32: 20.0}
ENGINE = {1: 0.6, 8: 0.9, 32: 2.0}
STAGED = Stages(
    export_ns=3_000_000_000,
    conversion_ns=4_000_000_000,
    calibration_ns=60_000_000_000,
    verification_ns=5_000_000_000,
    cached=("export", "conversion", "calibration", "reference"),
    unknown=("reference",),
)


def measured_run(
    backend: str,
    times_ms: Mapping[int, float],
    *,
    precision: Precision = "fp32",
    slo: Slo = Slo(),  # noqa: B008 - frozen
    build_s: float = 0.0,
    number: int = 1,
    stages: Stages | None = None,
    model: str = "resnet50",
    tf32: Tf32 | None = None,
) -> RunResult:
    """Five launches a batch size, 1 % apart, with a little noise in their samples."""
    draw = random.Random(7)
    cases = []
    for batch, ms in times_ms.items():
        one = case(model, precision, batch, backend=backend)
        one = msgspec.structs.replace(one, slo=slo)
        launches = []
        for turn in range(5):
            centre = ms * 1e6 * (1 + 0.01 * turn)
            taken = tuple(int(centre * draw.uniform(0.99, 1.02)) for _ in range(1200))
            launches.append(
                Launch(
                    samples_ns=taken,
                    wall_ns=sum(taken),
                    load_ns=2_000_000_000,
                    first_inference_ns=500_000_000,
                    peak_memory_bytes=4 * 10**9,
                )
            )
        engine = EngineFacts(digest="e" * 64, engine_bytes=1, build_ns=int(build_s * 1e9), tf32=tf32)
        cases.append(
            result(
                one, Measured(engine=engine, launches=tuple(launches)), source_digest="s" * 64, stages=stages
            )
        )
    return run(*cases, number=number)


def case_terms(inputs: Inputs | None = None, *, device: str = "NVIDIA H200", **more: Any) -> CaseTerms:
    """The terms of `inputs`, or of tables given by name, with the shipped prices."""
    given = inputs or msgspec.convert({"schema": "perfgate-trt/value-inputs/v1", **more}, Inputs)
    return terms(given, parse_prices(SHIPPED.read_bytes(), str(SHIPPED)), device, TODAY)


def example() -> CaseTerms:
    """The example that started the project."""
    inputs = parse_inputs((DATA / "example.toml").read_bytes(), "example.toml")
    return case_terms(inputs, device="Tesla T4")
