"""Explains what a run confirmed: the regression's two engines are loaded again, with a profiler on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from perfgate.engine.interface import LayerTimes
from perfgate.errors import PerfgateError
from perfgate.gate.explain.explain import Side, explain_case
from perfgate.measure.launch import EngineTarget
from perfgate.measure.layer_profile import LOADS, ProfileRequest, profile_sides
from perfgate.measure.schedule import Job
from perfgate.records import CaseResult, Environment, Explanation, Measured, Mode
from perfgate.run.base_engine import BaseEngine, BaseEngines


class RunExplainer:
    """Explanations of one run's regressions, under its lock and while its bases are open."""

    def __init__(self, bases: BaseEngines, environment: Environment, say: Callable[[str], None]) -> None:
        self._bases, self._environment, self._say = bases, environment, say

    def all(self, slower: Sequence[CaseResult], jobs: Sequence[Job]) -> dict[str, Explanation]:
        """By case id; a regression whose explanation fails stays one, and it is said why."""
        found: dict[str, Explanation] = {}
        by_case = {job.case_id: job for job in jobs}
        try:
            for case in slower:
                job = by_case.get(case.case.id)
                if job is None or not isinstance(job.target, EngineTarget):
                    continue
                explained = self._guarded(case, job, job.target)
                if explained is not None:
                    found[case.case.id] = explained
        except KeyboardInterrupt:
            # The verdicts are all there: what an impatient hand ends is only their explanation.
            self._say("interrupted: the explanations that are missing can be had by running again")
        return found

    def _guarded(self, case: CaseResult, job: Job, target: EngineTarget) -> Explanation | None:
        self._say(f"{case.case.id}: explaining, with profiled loads")
        try:
            explained = self._one(case, job, target)
        except (PerfgateError, OSError, ValueError) as error:
            self._say(f"{case.case.id}: not explained: {error}")
            return None
        if explained is not None:
            self._say(f"{case.case.id}: {explained.cause}")
        return explained

    def _one(self, case: CaseResult, job: Job, target: EngineTarget) -> Explanation | None:
        outcome = case.outcome
        assert isinstance(outcome, Measured)
        mode: Mode = outcome.mode or target.case.mode
        base = self._bases.engine(case, mode)
        if not isinstance(base, BaseEngine) or not isinstance(base.job.target, EngineTarget):
            self._say(f"{case.case.id}: not explained: {base}")
            return None
        ours, theirs = job.request, base.job.request
        take = functools.partial(take_loads, base.job.target, target, LOADS)
        return explain_case(
            case.case,
            Side(
                engine=base.job.target.engine,
                onnx=theirs.onnx if theirs else "",
                facts=base.job.engine,
                recipe=theirs.recipe if theirs else None,
                environment=self._environment,
                launches=outcome.base_launches,
            ),
            Side(
                engine=target.engine,
                onnx=ours.onnx if ours else "",
                facts=job.engine,
                recipe=case.recipe,
                environment=self._environment,
                launches=outcome.launches,
            ),
            profile=take,
        )


def take_loads(
    base: EngineTarget, head: EngineTarget, loads: int
) -> tuple[list[LayerTimes], list[LayerTimes]]:
    """Profiled loads of both engines. Raises `CaseError`."""
    return profile_sides(ProfileRequest(target=base), ProfileRequest(target=head), loads=loads)
