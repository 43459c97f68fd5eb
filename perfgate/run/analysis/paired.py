"""Two toolchains side by side: base and head built and launched in turn, each in its own interpreter."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from perfgate.engine.cache import EngineCache
from perfgate.errors import CaseError, UsageError
from perfgate.gate.baselines import Baselines, Stored
from perfgate.gate.statistics.noise import spread_of
from perfgate.gate.verdict.evidence import ConfirmedLaunches, Evidence
from perfgate.gate.verdict.judge import kind_of
from perfgate.measure.launch import EngineTarget, LaunchRequest, launch
from perfgate.measure.other_interpreter import RemoteBackend, environment_differences
from perfgate.measure.schedule import Job
from perfgate.model.cases import skip_reason
from perfgate.model.spec import ModelSpec
from perfgate.records import (
    BaselineCase,
    Case,
    CaseResult,
    Commit,
    Difference,
    Environment,
    Failed,
    Launch,
    Measured,
    NotRun,
    Outcome,
    Record,
    RunResult,
    columns,
    digest,
)
from perfgate.run.base_engine import BaseContext, BaseEngine, BaseEngines
from perfgate.run.confirm import Measurements
from perfgate.run.pipeline import Pipeline
from perfgate.run.rebuilds import Rebuilds, TrialResult
from perfgate.run.trial import Trial, TrialTerms, run_trial
from perfgate.util.git import read_commit, resolve, worktree
from perfgate.util.interpreter import HERE, Interpreter, another_python

# As `--paired .`: the files as they are, with another interpreter.
THIS_TREE = "."


class PairedBase(Record):
    """Base's side: a git revision or `.`, and at most one of an interpreter and an image to run it with."""

    revision: str
    python: str = ""
    image: str = ""


def run_paired(
    pipeline: Pipeline, selected: Sequence[tuple[ModelSpec, Case]], other: PairedBase
) -> RunResult:
    """Every selected case, head against base by fresh launches of both; nothing stored is compared with.

    Raises `UsageError` for a base that is not there or is no other than head.
    """
    if other.python and other.image:
        raise UsageError("takes one of --base-python and --base-image", where="--paired")
    if other.revision == THIS_TREE and not (other.python or other.image):
        raise UsageError("is head itself", where="--paired .", fix="a revision, or --base-python PATH")
    root = Path(pipeline.settings.root)
    commit = read_commit(root) if other.revision == THIS_TREE else resolve(root, other.revision)
    with contextlib.ExitStack() as stack:
        place = root if other.revision == THIS_TREE else stack.enter_context(worktree(root, commit.sha))
        python = stack.enter_context(_interpreter(other, pipeline, place))
        backend = RemoteBackend(pipeline.backend.name, pipeline.settings.device, python)
        pipeline.progress.say(f"base: {backend.environment.toolchain} in {python.image or python.python}")
        shop = BaseContext(
            settings=pipeline.settings,
            environment=backend.environment,
            baselines=Baselines(root=""),
            protocol=pipeline.protocol,
        )
        engines = EngineCache(
            _base_engines(pipeline, python),
            cap_bytes=pipeline.settings.engine_cache_mib << 20,
            say=pipeline.progress.say,
            python=python,
            turn=pipeline.lock.to_build,
        )
        with BaseEngines(shop, backend, engines, pipeline.cases, pipeline.progress.say) as bases:
            found = [_Pair(pipeline, bases, python).case(one, commit, place) for one in selected]
        return _judged(pipeline, found, commit, backend.environment)


def _base_engines(pipeline: Pipeline, python: Interpreter) -> Path:
    """Where base's engines are kept: those that another interpreter built are never taken for ours, though
    their recipes may be equal."""
    folder = "engines" if python == HERE else f"engines-{digest((python.image, python.python))[:12]}"
    return pipeline.settings.path("store").resolve() / folder


@contextlib.contextmanager
def _interpreter(other: PairedBase, pipeline: Pipeline, place: Path) -> Iterator[Interpreter]:
    if other.image:
        store = str(pipeline.settings.path("store").resolve())
        Path(store).mkdir(parents=True, exist_ok=True)
        yield Interpreter(
            python="python3",
            image=other.image,
            writable=(store,),
            readable=(str(place.resolve()),),
            gpus=pipeline.backend.kind == "gpu",
        )
    elif other.python:
        with another_python(other.python) as python:
            yield python
    else:
        yield HERE


class _Tried(Record):
    """One case after its trial; `fresh` is None where nothing could be decided."""

    result: CaseResult
    base: BaseEngine | None = None
    fresh: ConfirmedLaunches | None = None


class _Pair:
    """Builds both sides of a case and launches them in turn."""

    def __init__(self, pipeline: Pipeline, bases: BaseEngines, python: Interpreter) -> None:
        self._pipeline, self._bases, self._python = pipeline, bases, python

    def case(self, one: tuple[ModelSpec, Case], commit: Commit, place: Path) -> _Tried:
        pipeline, (spec, case) = self._pipeline, one
        skipped = skip_reason(spec, case, device_kind=pipeline.backend.kind)
        if reason := pipeline.backend.refuses(case) or ("" if pipeline.settings.all_cases else skipped):
            return _Tried(result=CaseResult(case=case, outcome=NotRun(reason=reason)))
        try:
            result, request = pipeline.request_of(one)
            engine, facts = pipeline.engine(request)
        except CaseError as error:
            return _Tried(result=CaseResult(case=case, outcome=_build_failed(error, "head")))
        try:
            base = self._bases.of_commit(result, case.mode, commit, place)
        except CaseError as error:
            return _Tried(result=msgspec.structs.replace(result, outcome=_build_failed(error, "base")))
        if isinstance(base, str):
            return _Tried(result=msgspec.structs.replace(result, outcome=NotRun(reason=base)))
        target = EngineTarget(
            engine=str(engine.resolve()),
            case=case,
            folder=str(spec.folder.resolve()),
            device=pipeline.settings.device,
        )
        job = Job(case_id=case.id, target=target, protocol=pipeline.protocol, engine=facts, request=request)
        return self._launched(job, base, result)

    def _one(self, request: LaunchRequest) -> Launch:
        """A launch in the interpreter that built the engine."""
        assert isinstance(request.target, EngineTarget)
        of_base = Path(request.target.engine).is_relative_to(_base_engines(self._pipeline, self._python))
        return launch(request, self._python if of_base else HERE)

    def _launched(self, job: Job, base: BaseEngine, result: CaseResult) -> _Tried:
        pipeline = self._pipeline
        terms = TrialTerms(
            tolerance=result.case.tolerance,
            spread=spread_of(kind_of(pipeline.environment)),
            budget=pipeline.settings.budget(),
            seed=int(result.case_digest[:8], 16),
        )
        pipeline.progress.say(f"{job.case_id}: base and head in turn")

        def trial_of(head: Job, against: BaseEngine) -> tuple[Outcome, ConfirmedLaunches | str | None]:
            trial = Trial(head, against, terms, self._one)
            return run_trial(trial, head, (), lambda note: pipeline.progress.step(head.case_id, note))

        with pipeline.lock():
            outcome, fresh = trial_of(job, base)
            if isinstance(fresh, ConfirmedLaunches):
                luck = Rebuilds(pipeline.engine, self._bases.build, self._one, pipeline.progress.say)
                tried = TrialResult(head=job, base=base, outcome=outcome, fresh=fresh)
                chosen = luck.settle(tried, result.case.draws, trial_of)
                outcome, fresh, base = chosen.outcome, chosen.fresh, chosen.base
        if isinstance(fresh, str):
            outcome = Failed(stage="launch", reason=f"base: {fresh}")
            return _Tried(result=msgspec.structs.replace(result, outcome=outcome))
        return _Tried(result=msgspec.structs.replace(result, outcome=outcome), base=base, fresh=fresh)


def _build_failed(error: CaseError, side: str) -> Outcome:
    return Failed(stage="build", reason=f"{side}: {error.reason}", stderr_tail=error.stderr_tail)


def _judged(
    pipeline: Pipeline, tried: Sequence[_Tried], commit: Commit, environment: Environment
) -> RunResult:
    """The run judged with base's own launches in the baseline's place."""
    result = msgspec.structs.replace(
        pipeline.result_of([one.result for one in tried]), base=commit, base_environment=environment
    )
    stored = {
        one.result.case.id: _stand_in(one, pipeline.environment, commit)
        for one in tried
        if one.fresh and isinstance(one.result.outcome, Measured)
    }
    evidence = {one.result.case.id: Evidence(fresh=one.fresh) for one in tried if one.fresh}
    pipeline.judging.baselines = Baselines(root="", cases=stored)
    pipeline.judging.found = Measurements(evidence=evidence)
    result = pipeline.judged(result)
    differ = tuple(
        Difference(field=name, base=base, head=head)
        for name, (base, head) in environment_differences(environment, pipeline.environment).items()
    )
    cases = tuple(_with_differences(case, differ) for case in result.cases)
    return msgspec.structs.replace(result, cases=cases)


def _stand_in(one: _Tried, environment: Environment, commit: Commit) -> Stored:
    assert one.fresh is not None and one.base is not None
    case = BaselineCase(
        case_digest=one.result.case_digest,
        mode=one.result.case.mode,
        environment="base",
        metrics=columns(one.fresh.base, one.base.job.engine),
        promoted="now",
        commit=commit.sha,
        reason="base's own launches",
    )
    return Stored(case=case, environment=environment, path="base")


def _with_differences(case: CaseResult, differ: tuple[Difference, ...]) -> CaseResult:
    if case.judgement is None or not isinstance(case.outcome, Measured):
        return case
    return msgspec.structs.replace(
        case, judgement=msgspec.structs.replace(case.judgement, differences=differ)
    )
