"""One commit of a bisection: is it slower than GOOD? `python -m perfgate.run.bisect.step TASK.json` is what
`git bisect run` calls, in the temporary worktree at the commit to test.

Exit codes are git's: 0 as fast, 1 slower, 125 cannot be said, 128 stop altogether.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from perfgate.engine import get_backend
from perfgate.engine.cache import EngineCache
from perfgate.errors import CaseError, PerfgateError, SpecError, UsageError
from perfgate.gate.baselines import load_baselines
from perfgate.gate.statistics.noise import spread_of
from perfgate.measure.environment import fingerprint
from perfgate.measure.launch import EngineTarget, LaunchRequest, launch
from perfgate.measure.schedule import Job
from perfgate.model.cases import expand
from perfgate.model.manifest import other_checkout
from perfgate.model.read import read_specs
from perfgate.model.spec import ModelSpec
from perfgate.records import Case, Commit, Interval, Launch, Name, Record, Sha256, Text, Verdict
from perfgate.run.base_engine import BaseEngine
from perfgate.run.prepare import Preparation
from perfgate.run.trial import Trial, TrialTerms
from perfgate.settings import Settings
from perfgate.util.files import read_record, record_json, write_text
from perfgate.util.git import read_commit

AS_FAST, SLOWER, SKIP, STOP = 0, 1, 125, 128
# An INCONCLUSIVE or invalid trial is held once more, with launches and an order of its own.
TRIALS = 2
_LIMIT_BYTES = 64 << 20


class Finding(Record):
    """A commit, what became of it, and the ratio to GOOD where launches were taken."""

    commit: Commit
    verdict: Verdict | None = None
    engine_digest: str = ""
    ratio: Interval | None = None
    note: Text = ""


class Task(Record):
    """What every step needs, and what the steps before it found. `root` is the project's place in the
    worktree; `stopped` is why a step ended the bisection."""

    settings: Settings
    case_id: Name
    root: str
    good: BaseEngine
    known: dict[Sha256, Verdict] = {}
    steps: tuple[Finding, ...] = ()
    stopped: Text = ""


class StepContext:
    """Builds the case at any place, and holds a trial against another engine. Baselines (for their timing
    caches), engines and settings are those of the user's own project, whatever commit is tested."""

    def __init__(
        self,
        settings: Settings,
        case_id: str,
        say: Callable[[str], None],
        one: Callable[[LaunchRequest], Launch] | None = None,
    ) -> None:
        self._settings, self._case_id, self._say = settings, case_id, say
        self._one = one or launch
        self.backend = get_backend(settings.backend, settings.device)
        self._environment = fingerprint(self.backend, settings.device)
        self._baselines = load_baselines(settings.path("baselines"), self._environment)
        self._protocol = settings.protocol(self.backend.kind)
        self._engines = EngineCache(
            settings.path("store").resolve() / "engines", cap_bytes=settings.engine_cache_mib << 20, say=say
        )

    def engine(self, place: Path, commit: Commit) -> BaseEngine:
        """The case's engine at a commit's files, from the cache or built. Raises `PerfgateError`."""
        settings = dataclasses.replace(
            self._settings, root=str(place), store=str(self._settings.path("store").resolve())
        )
        spec, case = self._case(settings)
        preparation = Preparation(
            settings,
            self.backend,
            self._environment,
            self._baselines,
            self._say,
            other_checkout(Path(self._settings.root), place),
        )
        _, request = preparation.one_case(spec, case)
        path, facts = self._engines.get(request, timeout_s=settings.build_timeout_s)
        inside = spec.folder.resolve().relative_to(settings.path("models").resolve())
        target = EngineTarget(
            engine=str(path.resolve()),
            case=case,
            # Input files are the user's own on every side: those of the worktree change under GOOD's feet.
            folder=str(self._settings.path("models").resolve() / inside),
            device=settings.device,
        )
        job = Job(case_id=case.id, target=target, protocol=self._protocol, engine=facts, request=request)
        return BaseEngine(job=job, commit=commit)

    def _case(self, settings: Settings) -> tuple[ModelSpec, Case]:
        for spec in read_specs([settings.path("models")]):
            cases = expand(
                spec,
                backend=self.backend.name,
                default_mode=self.backend.modes()[0],
                tolerance=settings.tolerance(self.backend.kind),
                source=os.path.relpath(spec.path, settings.root),
            )
            for case in cases:
                if case.id == self._case_id:
                    return spec, case
        raise SpecError(f"no case is named {self._case_id!r}", where=settings.models)

    def trial(self, base: BaseEngine, head: BaseEngine) -> tuple[Verdict, Interval | None, str]:
        """The confirmation's own test of head against base, held `TRIALS` times at most."""
        ours, theirs = head.job.engine, base.job.engine
        if ours and theirs and ours.digest == theirs.digest:
            return Verdict.PASS, None, "the same engine, byte for byte"
        assert isinstance(head.job.target, EngineTarget)
        ratio, note = None, ""
        for attempt in range(TRIALS):
            terms = TrialTerms(
                tolerance=head.job.target.case.tolerance,
                spread=spread_of(self.backend.kind),
                budget=self._settings.budget(),
                seed=zlib.crc32(f"{base.commit.sha} {head.commit.sha} {attempt}".encode()),
                luck=False,  # a bisection follows one tolerance through all its commits
            )
            sides, decision = Trial(head.job, base, terms, self._one).run(self._say)
            if decision is None:
                note = "no launch was valid: " + (sides.invalid[-1].invalid if sides.invalid else "unknown")
                continue
            ratio = decision.ratio
            if decision.verdict:
                return decision.verdict, ratio, f"{len(sides.head)} launches a side"
            note = f"undecided after {len(sides.head)} launches a side"
        return Verdict.INCONCLUSIVE, ratio, note


def step(task: Task, bench: StepContext) -> tuple[int, Finding]:
    """Test the commit that is checked out. A commit that cannot be built or decided is skipped."""
    place = Path(task.root)
    commit = read_commit(place)
    try:
        head = bench.engine(place, commit)
    except (CaseError, SpecError, UsageError) as error:
        return SKIP, Finding(commit=commit, note=f"cannot be tested: {' '.join(error.what.split())}"[:2000])
    digest = head.job.engine.digest if head.job.engine else ""
    if digest in task.known:
        verdict = task.known[digest]
        tested = Finding(commit=commit, verdict=verdict, engine_digest=digest, note="an engine seen before")
        return _code(verdict), tested
    try:
        verdict, ratio, note = bench.trial(task.good, head)
    except CaseError as error:
        return SKIP, Finding(
            commit=commit, engine_digest=digest, note=f"its launch failed: {error.what}"[:2000]
        )
    tested = Finding(commit=commit, verdict=verdict, engine_digest=digest, ratio=ratio, note=note)
    return _code(verdict), tested


def _code(verdict: Verdict) -> int:
    if verdict is Verdict.REGRESSION:
        return SLOWER
    return AS_FAST if verdict in (Verdict.PASS, Verdict.IMPROVEMENT) else SKIP


def remembered(task: Task, tested: Finding) -> Task:
    """The task with one more step; a verdict that decides holds for every commit of the same engine."""
    known = task.known
    if tested.engine_digest and tested.verdict and _code(tested.verdict) != SKIP:
        known = {**known, tested.engine_digest: tested.verdict}
    return msgspec.structs.replace(task, known=known, steps=(*task.steps, tested))


def read_task(path: Path) -> Task:
    return read_record(path, Task, limit_bytes=_LIMIT_BYTES)


def main() -> int:
    path = Path(sys.argv[1])
    task = read_task(path)
    try:
        code, tested = step(
            task, StepContext(task.settings, task.case_id, lambda text: print(text, flush=True))
        )
    except PerfgateError as error:
        write_text(path, record_json(msgspec.structs.replace(task, stopped=str(error)[:2000])))
        return STOP
    write_text(path, record_json(remembered(task, tested)))
    return code


if __name__ == "__main__":
    sys.exit(main())
