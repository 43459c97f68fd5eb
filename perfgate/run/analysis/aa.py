"""This machine's own noise: one engine against itself and against rebuilds of itself, for some minutes."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from perfgate.engine.cache import EngineCache
from perfgate.errors import InfrastructureError
from perfgate.gate.statistics.noise import spread_of
from perfgate.gate.statistics.power import AAResult, Power, power, run_aa_gates
from perfgate.gate.statistics.sequential import BUDGET
from perfgate.gate.verdict.judge import kind_of
from perfgate.measure.launch import EngineTarget, LaunchRequest, launch
from perfgate.model.spec import ModelSpec
from perfgate.records import Case, EngineFacts, Launch, Record
from perfgate.run.pipeline import Pipeline

# Two sides of a block each: with less nothing can be said.
LEAST_LAUNCHES = 4


class Rebuild(Record):
    """An engine built again: whether its bytes are the first's, and its launches' mean over the first's."""

    same_bytes: bool
    launches: int
    ratio: float


class Noise(Record):
    """What `perfgate selftest` found. `seconds` were spent launching; `invalid` launches are left out."""

    case: str
    launches: int
    invalid: int
    seconds: float
    alike: AAResult
    rebuilds: tuple[Rebuild, ...]
    power: Power


class AABudget(Record):
    """How long: `minutes` of launches, shared with this many `rebuilds`."""

    minutes: float
    rebuilds: int


def measure_noise(
    pipeline: Pipeline,
    selected: tuple[ModelSpec, Case],
    patience: AABudget,
    one: Callable[[LaunchRequest], Launch] = launch,
) -> Noise:
    """Launch the case's engine, and rebuilds of it, in turn until the time is over.

    Raises `CaseError` for a case that does not build or launch, and `InfrastructureError` where too few
    launches were valid.
    """
    engine, facts, _ = pipeline.build(selected)
    store = pipeline.settings.path("store")
    with tempfile.TemporaryDirectory(prefix="aa-", dir=store) as name, pipeline.lock():
        engines = [(engine, facts)]
        for number in range(patience.rebuilds):
            pipeline.progress.say(f"building it again: {number + 1} of {patience.rebuilds}")
            engines.append(pipeline.build(selected, EngineCache(Path(name) / str(number)))[:2])
        started = time.monotonic()
        taken: list[list[Launch]] = [[] for _ in engines]
        while time.monotonic() - started < 60 * patience.minutes or len(taken[0]) < LEAST_LAUNCHES:
            for launches, (path, _) in zip(taken, engines, strict=True):
                target = EngineTarget(
                    engine=str(path.resolve()),
                    case=selected[1],
                    folder=str(selected[0].folder.resolve()),
                    device=pipeline.settings.device,
                )
                launches.append(one(LaunchRequest(target=target, protocol=pipeline.protocol)))
                pipeline.progress.step(selected[1].id, f"{launches[-1].median_ns / 1e6:.4g} ms")
        seconds = time.monotonic() - started
    return _summed_up(pipeline, selected[1], [facts for _, facts in engines], taken, seconds)


def _summed_up(
    pipeline: Pipeline, case: Case, facts: list[EngineFacts], taken: list[list[Launch]], seconds: float
) -> Noise:
    valid = [[one.median_ns for one in launches if not one.invalid] for launches in taken]
    if len(valid[0]) < LEAST_LAUNCHES:
        why = next((one.invalid for one in taken[0] if one.invalid), "")
        raise InfrastructureError(
            f"only {len(valid[0])} of {len(taken[0])} launches are valid: {why}", fix="quieten the machine"
        )
    kind = kind_of(pipeline.environment)
    budget = pipeline.settings.budget()[0] or BUDGET
    centre = _centre(valid[0])
    return Noise(
        case=case.id,
        launches=sum(map(len, valid)),
        invalid=sum(map(len, taken)) - sum(map(len, valid)),
        seconds=round(seconds, 1),
        alike=run_aa_gates(valid[0], case.tolerance, spread_of(kind, [valid[0]]), budget),
        rebuilds=tuple(
            Rebuild(
                same_bytes=built.digest == facts[0].digest,
                launches=len(values),
                ratio=round(math.exp(_centre(values) - centre), 5),
            )
            for built, values in zip(facts[1:], valid[1:], strict=True)
            if values
        ),
        power=power([valid[0]], case.tolerance, kind, budget=budget),
    )


def _centre(values: list[float]) -> float:
    return math.fsum(map(math.log, values)) / len(values)
