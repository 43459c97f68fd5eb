"""Small runs, launches and baselines for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from perfgate.gate.baselines import Baselines, Stored, load_baselines
from perfgate.gate.policy.promote import Move, PromotionTerms, promote as promote_with_timing
from perfgate.gate.verdict.judge import judge
from perfgate.gate.verdict.summary import summarise
from perfgate.records import (
    RESULTS_SCHEMA,
    BaselineCase,
    Case,
    CaseResult,
    Commit,
    EngineFacts,
    Environment,
    Launch,
    Measured,
    Outcome,
    Protocol,
    Recipe,
    RunResult,
    Tolerance,
    columns,
)

DIGEST = "ab" * 32
PROTOCOL = Protocol(launches=5)
ENVIRONMENT = Environment(
    device="nvidia-h200",
    toolchain="tensorrt-10.13",
    key={"tensorrt": "10.13", "driver": "580"},
    noted={"python": "3.11"},
)


def launch(median_ns: int, samples: int = 3, invalid: str = "") -> Launch:
    return Launch(
        samples_ns=(median_ns,) * samples,
        wall_ns=median_ns * samples,
        load_ns=10,
        first_inference_ns=20,
        peak_memory_bytes=30,
        invalid=invalid,
    )


def measured(*medians_ns: int, samples: int = 3, invalid: str = "") -> Measured:
    return Measured(
        engine=EngineFacts(digest=DIGEST, engine_bytes=1000),
        launches=tuple(launch(median, samples, invalid) for median in medians_ns),
    )


STEADY = measured(1_000_000, 1_001_000, 999_000, 1_000_500, 999_500)
SLOWER = measured(1_100_000, 1_101_000, 1_099_000, 1_100_500, 1_099_500)
FASTER = measured(900_000, 901_000, 899_000, 900_500, 899_500)


def case(case_id: str = "net/fp16/b8", **more: Any) -> Case:
    defaults: dict[str, Any] = {
        "id": case_id,
        "model": case_id.split("/")[0],
        "backend": "tensorrt",
        "precision": "fp16",
        "tolerance": Tolerance(ignore=0.005, catch=0.02),
    }
    return Case(**(defaults | more))


def stored(outcome: Measured = STEADY, environment: Environment = ENVIRONMENT) -> Stored:
    return Stored(
        case=BaselineCase(
            case_digest=DIGEST,
            environment="e",
            metrics=columns(outcome.launches),
            promoted="2026-01-01",
            reason="first",
        ),
        environment=environment,
        path="baselines/net.json",
    )


def run(outcomes: dict[str, Outcome], root: Path, **more: Any) -> RunResult:
    """A run judged against the baselines under `root`."""
    return judged_run(outcomes, load_baselines(root, ENVIRONMENT), **more)


def judged_run(outcomes: dict[str, Outcome], baselines: Baselines, **more: Any) -> RunResult:
    cases = []
    for case_id, outcome in outcomes.items():
        one = case(case_id)
        cases.append(
            CaseResult(
                case=one,
                outcome=outcome,
                case_digest=DIGEST,
                source_digest="cd" * 32,
                recipe=Recipe(backend="tensorrt", onnx_digest=DIGEST, precision="fp16"),
                judgement=judge(one, outcome, baselines, ENVIRONMENT, PROTOCOL),
            )
        )
    result = RunResult(
        schema=RESULTS_SCHEMA,
        run_id="run-1",
        created="2026-01-02T03:04:05Z",
        perfgate="0.1.0",
        commit=Commit(sha="ab" * 20),
        environment=ENVIRONMENT,
        protocol=PROTOCOL,
        cases=tuple(cases),
        summary=summarise(cases, results="results.json"),
    )
    return msgspec.structs.replace(result, **more)


def promote(
    result: RunResult,
    root: Path,
    *,
    reason: str,
    timing: Path = Path("no-timing-caches"),
    accept: Sequence[str] = (),
    allow_dirty: bool = False,
) -> list[Move]:
    terms = PromotionTerms(reason=reason, accept=tuple(accept), allow_dirty=allow_dirty)
    return promote_with_timing([result], root, terms, timing=timing)


def seed(root: Path, names: Sequence[str] = ("net/fp16/b8",)) -> RunResult:
    """Promote steady launches of these cases as their first baseline."""
    result = run(dict.fromkeys(names, STEADY), root)
    promote(result, root, reason="first")
    return result
