"""The line from specs to a judged result. Both front doors call this; it wires rooms and decides nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from perfgate._version import __version__
from perfgate.engine import get_backend
from perfgate.engine.cache import EngineCache
from perfgate.engine.child import prebuilt_engine
from perfgate.engine.interface import Backend, BuildRequest
from perfgate.errors import CaseError, InfrastructureError, PerfgateError
from perfgate.gate.baselines import Baselines, Stored, load_baselines
from perfgate.gate.policy.active import ActivePolicy
from perfgate.image.lock import LOCK, pin_faults
from perfgate.measure.accuracy.check import CheckRequest
from perfgate.measure.environment import fingerprint
from perfgate.measure.launch import EngineTarget
from perfgate.measure.lock import DeviceLock
from perfgate.measure.schedule import Job, measure
from perfgate.model.cases import expand, missing_case
from perfgate.model.read import sort_specs
from perfgate.model.spec import ModelSpec
from perfgate.records import (
    RESULTS_SCHEMA,
    Accuracy,
    Case,
    CaseResult,
    EngineFacts,
    Environment,
    Failed,
    Measured,
    Mode,
    Outcome,
    Protocol,
    RunResult,
    Unchanged,
    Verdict,
)
from perfgate.run.base_engine import BaseContext, BaseEngines
from perfgate.run.check_accuracy import AccuracyResult, check_accuracy, with_accuracy_of
from perfgate.run.confirm import ConfirmContext, Measurer
from perfgate.run.explain import RunExplainer
from perfgate.run.judge import RunJudge
from perfgate.run.outputs import RESULTS_NAME, TIMING_NAME, Checkpoint, with_outcomes
from perfgate.run.prepare import NOT_MEASURED, Pending, Preparation
from perfgate.settings import Settings
from perfgate.util.files import file_digest, write_bytes
from perfgate.util.git import read_commit
from perfgate.util.progress import PlainProgress


class Pipeline:
    """One run on one backend and device: plan the cases, measure those selected, judge all of them."""

    def __init__(
        self, settings: Settings, progress: PlainProgress, authority: ActivePolicy | None = None
    ) -> None:
        """`authority` says by whose policy it is judged, and has its settings; without it, by `settings`."""
        self._authority = authority or ActivePolicy(dataclasses.replace(settings, policy_from=""), {})
        self.settings = settings = self._authority.settings
        self.progress = progress
        started = time.perf_counter_ns()
        self.backend: Backend = get_backend(settings.backend, settings.device)
        if reason := self.backend.unavailable():
            raise InfrastructureError(reason, where=f"backend {self.backend.name}", fix="perfgate doctor")
        found = self.backend.versions()
        versions = ", ".join(f"{name} {version}" for name, version in found.items())
        progress.say(f"{self.backend.name} ({versions}) on {self.backend.device()}")
        for pin in pin_faults(Path(settings.root), found):
            progress.say(f"not what {LOCK} pins: {pin.field} is {pin.head}, pinned is {pin.base}")
        self.interrupted = False
        self.broken: dict[str, PerfgateError] = {}
        self.environment: Environment = fingerprint(
            self.backend, settings.device, locked_mhz=settings.lock_clocks_mhz
        )
        self._probe_ns = time.perf_counter_ns() - started
        self.protocol: Protocol = settings.protocol(self.backend.kind)
        baselines = load_baselines(settings.path("baselines"), self.environment)
        self.judging = RunJudge(settings, self.environment, self.protocol, baselines, self._authority.waivers)
        self.preparation = Preparation(settings, self.backend, self.environment, self.baselines, progress.say)
        self.lock = DeviceLock(self.backend, settings, progress.say)
        self._engines = EngineCache(
            settings.path("store") / "engines",
            cap_bytes=settings.engine_cache_mib << 20,
            say=progress.say,
            turn=self.lock.to_build,
        )
        shop = BaseContext(
            settings=settings,
            environment=self.environment,
            baselines=self.baselines,
            protocol=self.protocol,
        )
        self._bases = BaseEngines(shop, self.backend, self._engines, self.cases, progress.say)

    def plan(self, paths: Sequence[Path]) -> list[tuple[ModelSpec, Case]]:
        """All cases of the specs under `paths`; `broken` tells what is wrong with those that cannot be read.
        Runs no script and builds nothing. Raises `SpecError` where none can be read."""
        specs, broken = sort_specs(list(paths))
        self.broken = {path.stem: error for path, error in broken.items()}
        return [(spec, case) for spec in specs for case in self.cases(spec)]

    def cases(self, spec: ModelSpec) -> list[Case]:
        """The cases of a spec; results name the spec by its path in the project, not on this machine."""
        spec = self._authority.spec(spec)
        if self.settings.mode:
            spec = msgspec.structs.replace(spec, modes=(self.settings.mode,))
        return expand(
            spec,
            backend=self.backend.name,
            default_mode=self.backend.modes()[0],
            tolerance=self.settings.tolerance(self.backend.kind),
            source=os.path.relpath(spec.path, self.settings.root),
        )

    def missing(self, cases: Iterable[Case], *, models: Iterable[str] | None = None) -> list[CaseResult]:
        """Baseline cases that no spec makes any more, and those of specs that cannot be read; `models`
        narrows the scope to some models. A spec that cannot be read and has no baseline is a case of its
        own."""
        known = {case.id for case in cases}
        scope = None if models is None else {*models, *self.broken}
        lost = {
            case_id: stored
            for case_id, stored in self.baselines.cases.items()
            if case_id not in known
            and stored.case.onnx_digest
            and (scope is None or case_id.split("/")[0] in scope)
            and (not self.settings.mode or case_id.endswith(f"/{self.settings.mode}"))
        }
        unread = self.broken.keys() - {case_id.split("/")[0] for case_id in lost}
        return [
            CaseResult(case=missing_case(case_id, self.backend.name), outcome=self._lost(case_id))
            for case_id in (*lost, *sorted(unread))
        ]

    def _lost(self, case_id: str) -> Failed:
        """Why a case has no spec that makes it."""
        if error := self.broken.get(case_id.split("/")[0]):
            return Failed(stage="model", reason=f"its spec cannot be read: {error}")
        file = self._file_of(self.baselines.cases[case_id])
        return Failed(stage="missing", reason=f"{file} has this case, but no model spec makes it any more")

    def _file_of(self, stored: Stored) -> str:
        """A baseline's file as the project knows it, also where it is read from base's policy."""
        root = Path(self.baselines.root)
        return str(Path(root.name) / Path(stored.path).relative_to(root))

    def run(
        self,
        selected: Sequence[tuple[ModelSpec, Case]],
        *,
        missing: Sequence[CaseResult] = (),
        engine: Path | None = None,
    ) -> RunResult:
        """Prepare, build, measure and judge the selected cases; a checkpoint is written while measuring.

        An interrupt ends the step that it meets and skips those after it; what is known by then is judged.
        `engine` is a prebuilt engine file to gate in place of building one.
        """
        self._bases.check()
        selected = [(self._authority.spec(spec), case) for spec, case in selected]
        if self._authority.changes:
            self.progress.say(
                f"{len(self._authority.changes)} changes of policy take effect after the merge; judged by "
                f"{self._authority.commit.sha[:12]}"
            )
        prebuilt = None if engine is None else file_digest(engine)
        prepared, pending = self._prepare(selected, prebuilt)
        result = self.result_of([*prepared, *missing])
        jobs, known = self._build(pending, prebuilt=engine)
        result = self._checked(result, pending, jobs)
        outcomes = self._measure(jobs, with_outcomes(result, known))
        result = self._of_gated_builds(result, pending)
        return self.judged(with_outcomes(result, {**known, **outcomes}))

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C ends the step inside and not the run."""
        try:
            yield
        except KeyboardInterrupt:
            self.interrupted = True

    def _prepare(
        self, selected: Sequence[tuple[ModelSpec, Case]], prebuilt: str | None
    ) -> tuple[list[CaseResult], list[Pending]]:
        """Every selected case, and those of them to build and measure."""
        results: list[CaseResult] = []
        pending: list[Pending] = []
        with self._interruptible():
            for result, item in self.preparation.all_cases(selected, prebuilt=prebuilt):
                results.append(result)
                pending += [] if item is None else [item]
        met = {result.case.id for result in results}
        results += [CaseResult(case=case, outcome=NOT_MEASURED) for _, case in selected if case.id not in met]
        return results, pending

    def judged(self, result: RunResult) -> RunResult:
        """The result with a judgement on every case and the summary."""
        return self.judging.run(result, interrupted=self.interrupted)

    @property
    def baselines(self) -> Baselines:
        """What is stored, and judged by."""
        return self.judging.baselines

    def result_of(self, cases: Sequence[CaseResult]) -> RunResult:
        """An unjudged run of these cases, here and now."""
        now = datetime.now(timezone.utc)
        return RunResult(
            schema=RESULTS_SCHEMA,
            run_id=f"{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}",
            created=f"{now:%Y-%m-%dT%H:%M:%SZ}",
            perfgate=__version__,
            commit=read_commit(Path(self.settings.root), sources=self.settings.path("models")),
            base=self._bases.base.commit,
            policy_changes=self._authority.changes,
            environment=self.environment,
            protocol=self.protocol,
            cases=tuple(cases),
            manifests={
                model: tuple(known.values()) for model, known in self.preparation.sources.used.items()
            },
            probe_ns=self._probe_ns,
        )

    def build(
        self, selected: tuple[ModelSpec, Case], engines: EngineCache | None = None
    ) -> tuple[Path, EngineFacts, CaseResult]:
        """The engine of one case, from the cache or built now, without measuring. Raises `CaseError`."""
        result, request = self.request_of(selected)
        engine, facts = (engines or self._engines).get(request, timeout_s=self.settings.build_timeout_s)
        return engine, facts, result

    def request_of(self, selected: tuple[ModelSpec, Case]) -> tuple[CaseResult, BuildRequest]:
        """One case with the request for its engine, whatever the baseline says. Raises `CaseError`."""
        return self.preparation.one_case(*selected)

    def engine(self, request: BuildRequest) -> tuple[Path, EngineFacts]:
        """The engine of a request, from the cache or built now. Raises `CaseError`."""
        return self._engines.get(request, timeout_s=self.settings.build_timeout_s)

    def kept_engine(self, engine_digest: str) -> tuple[Path, EngineFacts] | None:
        """An engine that this machine built and still has, by the SHA-256 of its bytes."""
        return self._engines.find(engine_digest) if engine_digest else None

    def graphs(self, spec: ModelSpec, case: Case) -> CheckRequest | None:
        """The FP32 graph, the case's own and the data to judge on; None without ONNX Runtime."""
        return self.preparation.graphs(spec, case)

    def gated_engine_digest(self, result: CaseResult) -> str:
        """The digest of the engine that a result's verdict is about; empty where none is known."""
        if isinstance(result.outcome, Measured) and result.outcome.engine:
            return result.outcome.engine.digest
        stored = self.baselines.cases.get(result.case.id)
        return stored.case.engine_digest if stored and isinstance(result.outcome, Unchanged) else ""

    def _build(
        self, pending: Sequence[Pending], *, prebuilt: Path | None
    ) -> tuple[list[Job], dict[str, Outcome]]:
        """Engines for the pending cases, each recipe built once; a build that fails is its case's own.

        Returns the jobs to measure, and the outcomes that are known without measuring.
        """
        jobs: list[Job] = []
        known: dict[str, Outcome] = {}
        with self._interruptible():
            for item in () if self.interrupted else pending:
                built = self._build_one(item, prebuilt)
                if isinstance(built, Job):
                    jobs.append(built)
                else:
                    known[item.result.case.id] = built
        return jobs, known

    def _build_one(self, item: Pending, prebuilt: Path | None) -> Job | Outcome:
        """The job that measures a pending case's engine, or what is known of it without."""
        case = item.result.case
        what = "inspecting the engine" if prebuilt else "building the engine, or taking it from the cache"
        self.progress.say(f"{case.id}: {what}")
        request = item.request if prebuilt is None else None
        try:
            engine, facts = self._engine_of(item.request, prebuilt)
        except CaseError as error:
            return Failed.by("build", error)
        self._keep_timing(engine.parent / "timing", facts)
        if self.preparation.same_engine(item.result, facts):
            return Unchanged(evidence="engine")
        target = EngineTarget(
            engine=str(engine.resolve()),
            case=case,
            folder=item.folder,
            device=self.settings.device,
            axes=item.axes if prebuilt else {},
        )
        graph = item.request.recipe.onnx_digest if prebuilt is None else ""
        job = Job(case_id=case.id, target=target, protocol=self.protocol, engine=facts, request=request)
        return msgspec.structs.replace(job, onnx_digest=graph)

    def _engine_of(self, request: BuildRequest, prebuilt: Path | None) -> tuple[Path, EngineFacts]:
        if prebuilt is None:
            return self.engine(request)
        return prebuilt_engine(request, prebuilt, timeout_s=self.settings.build_timeout_s)

    def _checked(self, result: RunResult, pending: Sequence[Pending], jobs: Sequence[Job]) -> RunResult:
        """The result with every case's accuracy, found out before its speed is measured."""
        if not jobs or self.interrupted:
            return result
        return with_accuracy_of(result, self._answers(pending, jobs, {}))

    def _answers(
        self, pending: Sequence[Pending], jobs: Sequence[Job], known: dict[str, AccuracyResult]
    ) -> dict[str, AccuracyResult]:
        """The answers of the jobs' engines by case id; `known` stands where an interrupt leaves them open."""
        found = dict(known)
        store = self.settings.path("store") / "accuracy"
        with self._interruptible(), self.lock():
            # Each goes in as it comes: an interrupt loses only the one that is being found.
            found.update(check_accuracy(pending, jobs, store, self.progress.say))
        return found

    def _keep_timing(self, timing: Path, facts: EngineFacts) -> None:
        """Timing caches travel beside the results, so that promote finds them on another machine too."""
        if facts.timing_cache_digest and timing.is_file():
            target = self.settings.path("out") / TIMING_NAME / f"{facts.timing_cache_digest}.timing"
            write_bytes(target, timing.read_bytes())

    def _measure(self, jobs: Sequence[Job], result: RunResult) -> dict[str, Outcome]:
        """Measure under the device's lock; suspects are confirmed by fresh launches only."""
        if not jobs or self.interrupted:
            return {}
        court = ConfirmContext(
            baselines=self.baselines,
            environment=self.environment,
            protocol=self.protocol,
            default_mode=self.backend.modes()[0],
            budget=self.settings.budget(),
            run_id=result.run_id,
        )
        cases = {case.case.id: case for case in result.cases}
        with self._interruptible(), self.lock(), self._bases as bases:
            checkpoint = Checkpoint(result, self.settings.path("out") / RESULTS_NAME)
            measuring = Measurer(court, bases, self.progress, self.progress.say, self.engine)
            self.judging.found = measuring.run(jobs, cases, checkpoint)
            jobs = [self._gated(job) for job in jobs]
            if self.settings.explain and not self.judging.found.interrupted:
                measured = with_outcomes(result, self.judging.found.outcomes).cases
                slower = [case for case in measured if self.judging.case(case).verdict is Verdict.REGRESSION]
                explaining = RunExplainer(bases, self.environment, self.progress.say)
                self.judging.explained = explaining.all(slower, jobs)
        self.interrupted = self.interrupted or self.judging.found.interrupted
        return self.judging.found.outcomes

    def _of_gated_builds(self, result: RunResult, pending: Sequence[Pending]) -> RunResult:
        """The result with the recipe and the answers of builds that are gated in place of the first."""
        builds = self.judging.found.builds
        if not builds:
            return result
        unknown = AccuracyResult(
            accuracy=Accuracy(reference="none", failures=("this build was not checked",))
        )
        found = self._answers(pending, list(builds.values()), dict.fromkeys(builds, unknown))
        recipes = {key: job.request.recipe for key, job in builds.items() if job.request}
        cases = (
            msgspec.structs.replace(one, recipe=recipes.get(one.case.id, one.recipe)) for one in result.cases
        )
        return with_accuracy_of(msgspec.structs.replace(result, cases=tuple(cases)), found)

    def _gated(self, job: Job) -> Job:
        """The job of the build that is gated, its timing cache kept for promote."""
        build = self.judging.found.builds.get(job.case_id, job)
        if build is not job and build.engine and isinstance(build.target, EngineTarget):
            self._keep_timing(Path(build.target.engine).parent / "timing", build.engine)
        return build

    def measure_modes(self, selected: tuple[ModelSpec, Case], modes: Sequence[Mode]) -> list[Outcome]:
        """One case's engine measured in several modes, judged in none. Raises `CaseError` from the build."""
        spec, case = selected
        engine, facts, _ = self.build(selected)
        jobs = []
        for mode in modes:
            as_mode = msgspec.structs.replace(case, id=f"{case.id} ({mode})", mode=mode)
            target = EngineTarget(
                engine=str(engine.resolve()),
                case=as_mode,
                folder=str(spec.folder.resolve()),
                device=self.settings.device,
            )
            jobs.append(Job(case_id=as_mode.id, target=target, protocol=self.protocol, engine=facts))
        with self.lock():
            outcomes, interrupted = measure(jobs, self.progress)
        if interrupted:
            raise KeyboardInterrupt
        return [outcomes[job.case_id] for job in jobs]
