"""A machine whose launches are given, and the confirmation of one case on it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from perfgate.engine.interface import BuildRequest
from perfgate.errors import CaseError
from perfgate.gate.baselines import Baselines, Stored
from perfgate.gate.verdict.judge import judge
from perfgate.measure.launch import EngineTarget, LaunchRequest
from perfgate.measure.schedule import Job
from perfgate.records import (
    BaselineCase,
    BaselineRun,
    Case,
    CaseResult,
    Commit,
    EngineFacts,
    Environment,
    Failed,
    Judgement,
    Launch,
    Mode,
    Protocol,
    Recipe,
    Tolerance,
    columns,
)
from perfgate.run.base_engine import BaseEngine
from perfgate.run.confirm import ConfirmContext, Measurements, Measurer, without_base

CASE = Case(
    id="net/fp16/b8",
    model="net",
    backend="tensorrt",
    precision="fp16",
    tolerance=Tolerance(ignore=0.005, catch=0.02),
)
ENVIRONMENT = Environment(device="nvidia-h200", toolchain="tensorrt-8.5.3.1", key={"driver": "580"})
DIGEST = "ab" * 32
# Launches of one engine as a GPU has them: within some tenths of a per cent.
WOBBLE = (1.0, 1.003, 0.998, 1.001, 0.997, 1.002, 0.999, 1.004, 0.996)


def launch_of(median_ns: float, invalid: str = "") -> Launch:
    return Launch(
        samples_ns=(round(median_ns),) * 3,
        wall_ns=3 * round(median_ns),
        load_ns=1,
        first_inference_ns=1,
        invalid=invalid,
    )


class Machine:
    """Launches by engine: each has a median (ns) and wobbles about it; what was launched is kept."""

    def __init__(self, **medians: float) -> None:
        self.medians, self.seen, self.odd = medians, [], {}  # type: ignore[var-annotated]

    def __or__(self, more: dict[str, float]) -> Machine:
        return type(self)(**self.medians, **more)

    def __call__(self, request: LaunchRequest) -> Launch:
        assert isinstance(request.target, EngineTarget)
        name = Path(request.target.engine).name
        turn = self.seen.count(name)
        self.seen.append(name)
        answer = self.odd.get((name, turn))
        if isinstance(answer, BaseException):
            raise answer
        return answer or launch_of(self.medians[name] * WOBBLE[turn % len(WOBBLE)])


class Told:
    def start(self, total: int) -> None: ...
    def step(self, case_id: str, note: str) -> None: ...


class Builder:
    """Builds by recipe: the engine of draw n of `head` is `head-n`."""

    def __init__(self, **digests: str) -> None:
        self.digests, self.built = digests, []  # type: ignore[var-annotated]

    def __call__(self, request: BuildRequest) -> tuple[Path, EngineFacts]:
        name = f"{request.backend}-{request.recipe.draw}"
        self.built.append(name)
        digest = self.digests.get(name.replace("-", "_"), hashlib.sha256(name.encode()).hexdigest())
        if digest == "broken":
            raise CaseError("the builder ran out of memory")
        facts = EngineFacts(digest=digest, engine_bytes=1, timing_cache_bytes=20, timing_cache_loaded_bytes=0)
        return Path(name), facts


class FakeBases:
    def __init__(self, base: BaseEngine | str, build: Builder | None = None) -> None:
        self.base, self.asked, self.build = base, 0, build or Builder()

    def engine(self, result: CaseResult, mode: Mode) -> BaseEngine | str:
        self.asked += 1
        return self.base

    def prefer(self, result: CaseResult, mode: Mode, base: BaseEngine) -> None:
        self.base = base


def job(engine: str, timing_cache_bytes: int | None = None) -> Job:
    """A launch of an engine; with a timing cache left behind, it is one that was built without one."""
    recipe = Recipe(backend=engine, onnx_digest=DIGEST, precision="fp16")
    return Job(
        case_id=CASE.id,
        target=EngineTarget(engine=engine, case=CASE, folder="."),
        protocol=Protocol(launches=5),
        engine=EngineFacts(
            digest=DIGEST if engine == "base" else "cd" * 32,
            engine_bytes=1,
            timing_cache_bytes=timing_cache_bytes,
            timing_cache_loaded_bytes=0,
        ),
        request=BuildRequest(backend=engine, recipe=recipe, onnx="net.onnx"),
    )


def stored(runs: int = 1) -> Stored:
    """A baseline of 1 ms; with three runs on three days that agree, the screen may pass a case."""
    launches = [launch_of(1e6 * WOBBLE[index % len(WOBBLE)]) for index in range(9 * runs)]
    return Stored(
        case=BaselineCase(
            case_digest=DIGEST,
            environment="e",
            metrics=columns(launches),
            runs=tuple(
                BaselineRun(run_id=f"r{day}", created=f"2026-01-0{day + 1}T00:00:00Z", launches=9)
                for day in range(runs)
            ),
            promoted="2026-01-01",
            reason="first",
        ),
        environment=ENVIRONMENT,
        path="baselines/net.json",
    )


BASE = BaseEngine(job=job("base"), commit=Commit(sha="ab" * 20), notes=("said of base",))


def gate(
    machine: Machine,
    base: BaseEngine | str = BASE,
    runs: int = 1,
    budget: tuple[int | None, int | None] = (32, None),
    head: Job | None = None,
    build: Builder | None = None,
) -> tuple[Measurements, Judgement]:
    court = ConfirmContext(
        baselines=Baselines(root="baselines", cases={CASE.id: stored(runs)}),
        environment=ENVIRONMENT,
        protocol=Protocol(launches=5),
        default_mode=Mode(),
        budget=budget,
        run_id="run-1",
    )
    build = build or Builder()
    bases: Any = FakeBases(base, build)
    head = head or job("head")
    case = head.target.case  # type: ignore[union-attr]
    result = CaseResult(case=case, outcome=Failed(stage="interrupted", reason="not yet"))
    measuring = Measurer(court, bases, Told(), lambda _: None, build, machine)
    found = measuring.run([head], {CASE.id: result}, lambda _: None)
    outcome = found.outcomes[CASE.id]
    judgement = judge(
        CASE, outcome, court.baselines, ENVIRONMENT, court.protocol, evidence=found.evidence[CASE.id]
    )
    return found, without_base(judgement, outcome, found.without_base.get(CASE.id, ""))
