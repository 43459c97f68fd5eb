"""Results files of several stacks, small enough to check by hand."""

from __future__ import annotations

from typing import Any

from perfgate.records import (
    RESULTS_SCHEMA,
    Case,
    CaseResult,
    Environment,
    InputData,
    Launch,
    Measured,
    Mode,
    Outcome,
    Precision,
    Protocol,
    Recipe,
    RunResult,
    Tolerance,
)

REQUEST = Mode(drive="enqueue", transfers=True)
GPU = {"gpu": "NVIDIA H200", "mig": "off", "sm_count": "132", "driver": "580.1"}
CPU = {"cpu": "EPYC", "cpus": "16"}


def launch(median_ns: int, samples: int = 2000, **more: Any) -> Launch:
    """All samples alike but one in a hundred, which takes twice as long; the wall's time is their sum."""
    slow = samples // 50
    taken = (median_ns,) * (samples - slow) + (2 * median_ns,) * slow
    return Launch(
        samples_ns=taken,
        wall_ns=samples * median_ns,
        load_ns=1,
        first_inference_ns=1,
        **{"peak_memory_bytes": 1 << 30, **more},
    )


def case(
    model: str = "resnet50",
    precision: Precision = "fp32",
    batch: int = 8,
    *,
    backend: str = "torch",
    mode: Mode = REQUEST,
    inputs: dict[str, InputData] | None = None,
) -> Case:
    return Case(
        id=f"{model}/{precision}/b{batch}/{mode.drive}",
        model=model,
        backend=backend,
        precision=precision,
        shape={"b": batch},
        mode=mode,
        inputs={"x": InputData(seed=1)} if inputs is None else inputs,
        tolerance=Tolerance(ignore=0.005, catch=0.02),
    )


def measured(*medians_ns: int, **more: Any) -> Measured:
    return Measured(engine=None, launches=tuple(launch(median) for median in medians_ns), **more)


def result(
    one: Case, outcome: Outcome | None = None, *, onnx: str = "a", version: str = "", **more: Any
) -> CaseResult:
    library = "torch" if one.backend.startswith("torch") else one.backend
    recipe = Recipe(
        backend=one.backend,
        onnx_digest=onnx * 64,
        precision=one.precision,
        versions={library: version or {"torch": "2.11.0", "tensorrt": "8.5.3"}.get(library, "1")},
    )
    fields: dict[str, Any] = {"recipe": recipe, **more}
    return CaseResult(case=one, outcome=outcome or measured(1_000_000), **fields)


def run(*cases: CaseResult, key: dict[str, str] | None = None, number: int = 1) -> RunResult:
    facts = GPU if key is None else key
    versions = {
        name: value for one in cases if one.recipe is not None for name, value in one.recipe.versions.items()
    }
    return RunResult(
        schema=RESULTS_SCHEMA,
        run_id=f"run-{number}",
        created="2026-11-22T12:00:00Z",
        perfgate="0.1.0",
        environment=Environment(
            device="nvidia-h200" if "gpu" in facts else "cpu-epyc", toolchain="t", key={**facts, **versions}
        ),
        protocol=Protocol(),
        cases=cases,
    )
