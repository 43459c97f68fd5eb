"""Small runs for the tests of the history, and all rows of a database."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import sqlalchemy as sa

from perfgate.history.schema import cases, environments, launches, runs
from perfgate.records import (
    RESULTS_SCHEMA,
    Case,
    CaseResult,
    Commit,
    EngineFacts,
    Environment,
    Interval,
    Judgement,
    Launch,
    Measured,
    NotRun,
    Protocol,
    RunResult,
    Summary,
    Tolerance,
    Verdict,
)

ENVIRONMENT = Environment(
    device="nvidia-h200",
    toolchain="tensorrt-10.13",
    key={"tensorrt": "10.13", "driver": "580"},
    noted={"python": "3.11"},
)


def launch(center_ns: int, samples: int = 20, invalid: str = "", seed: int = 0) -> Launch:
    draw = random.Random(center_ns + seed)
    series = tuple(center_ns + draw.randrange(center_ns // 100 + 1) for _ in range(samples))
    return Launch(
        samples_ns=series,
        wall_ns=sum(series) + 7,
        load_ns=10,
        first_inference_ns=20,
        peak_memory_bytes=30,
        other_ns={"enqueue": series[:3]},
        invalid=invalid,
    )


def case(case_id: str, *launches: Launch, verdict: Verdict = Verdict.PASS, engine: str = "ab") -> CaseResult:
    one = Case(
        id=case_id,
        model=case_id.split("/")[0],
        backend="tensorrt",
        precision="fp16",
        tolerance=Tolerance(ignore=0.005, catch=0.02),
    )
    return CaseResult(
        case=one,
        outcome=Measured(
            engine=EngineFacts(digest=engine * 32, engine_bytes=1000), launches=launches, screen=launches[:1]
        ),
        case_digest="cd" * 32,
        judgement=Judgement(
            verdict=verdict,
            reason="because",
            ratio=Interval(estimate=1.0 + 1 / 3, low=0.99, high=1.7, confidence=0.95),
        ),
    )


def run(number: int = 1, *cases: CaseResult, **more: Any) -> RunResult:
    """Run `number`, measured that many minutes after midnight."""
    skipped = CaseResult(case=case("other/fp16/b1").case, outcome=NotRun(reason="not here"))
    # The skipped case stands first: keys and order must not get mixed up.
    default = (skipped, case("net/fp16/b8", launch(1000), launch(1100), launch(9000, invalid="thermal")))
    result = RunResult(
        schema=RESULTS_SCHEMA,
        run_id=f"run-{number:04d}",
        created=f"2026-01-02T{number // 60:02d}:{number % 60:02d}:00Z",
        perfgate="0.1.0",
        commit=Commit(sha=f"{number:040x}"),
        environment=ENVIRONMENT,
        protocol=Protocol(launches=3),
        cases=cases or default,
        summary=Summary(verdict=Verdict.PASS, exit_code=0, sentence="fine"),
    )
    return msgspec.structs.replace(result, **more)


def snapshot(address: str) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of a database without its own keys, to compare two databases by."""
    engine = sa.create_engine(address if "://" in address else f"sqlite:///{address}")
    try:
        with engine.connect() as connection:
            joined = cases.join(runs, runs.c.id == cases.c.run)
            launched = joined.join(launches, launches.c.case_key == cases.c.id)
            of_runs = sa.select(environments.c.digest, *_plain(runs)).join(environments)
            of_cases = sa.select(runs.c.run_id, *_plain(cases)).select_from(joined)
            of_launches = sa.select(runs.c.run_id, cases.c.case_id, *_plain(launches)).select_from(launched)
            queries = {"runs": of_runs, "cases": of_cases, "launches": of_launches}
            queries["environments"] = sa.select(*_plain(environments))
            return {
                name: sorted((tuple(row) for row in connection.execute(query)), key=repr)
                for name, query in queries.items()
            }
    finally:
        engine.dispose()


def _plain(table: sa.Table) -> list[sa.Column[Any]]:
    keys = {"id", "run", "case_key", "environment"}
    return [column for column in table.columns if column.name not in keys]
