"""The engine that a change is held against: base's own, from the engine cache or rebuilt from its commit."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import msgspec

from perfgate.engine.cache import EngineCache
from perfgate.engine.interface import Backend, BuildRequest
from perfgate.errors import PerfgateError
from perfgate.gate.baselines import Baselines, Stored
from perfgate.gate.policy.active import OF_BASELINE
from perfgate.measure.launch import EngineTarget
from perfgate.measure.schedule import Job
from perfgate.model.manifest import other_checkout
from perfgate.model.read import read_spec
from perfgate.model.spec import ModelSpec
from perfgate.records import (
    Case,
    CaseResult,
    Commit,
    EngineFacts,
    Environment,
    Manifest,
    Mode,
    Protocol,
    Record,
)
from perfgate.run.prepare import Preparation
from perfgate.settings import Settings
from perfgate.util.git import NO_REPOSITORY, Base, find_base, resolve, worktree


class BaseEngine(Record):
    """What to launch on base's side, the commit that it is from, and what is to be said of it. The ONNX
    file of the job's request is there while `BaseEngines` is open."""

    job: Job
    commit: Commit = Commit()
    notes: tuple[str, ...] = ()


class BaseContext(Record):
    """What a base is built with: the same as head's, but for the files."""

    settings: Settings
    environment: Environment
    baselines: Baselines
    protocol: Protocol


class BaseEngines:
    """Base engines of one run, asked for case by case. As a context manager it holds the base commit's files,
    in a temporary folder, from the first case that needs them to the end."""

    def __init__(
        self,
        shop: BaseContext,
        backend: Backend,
        engines: EngineCache,
        cases: Callable[[ModelSpec], list[Case]],
        say: Callable[[str], None],
    ) -> None:
        self._shop, self._backend, self._engines, self._cases, self._say = shop, backend, engines, cases, say
        self._root = Path(shop.settings.root)
        self._base: Base | None = None
        self._found: dict[tuple[str, Mode], BaseEngine | str] = {}
        self._places: dict[str, Path] = {}
        self._preparations: dict[Path, Preparation] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> BaseEngines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._places.clear()
        self._preparations.clear()
        self._found.clear()
        self._stack.close()

    @property
    def base(self) -> Base:
        """The base commit, or why there is none. Raises `UsageError` for one that was asked for in vain."""
        if self._base is None:
            asked, target = self._shop.settings.base, self._shop.settings.target
            self._base = (
                Base(why="each case has its baseline's commit")
                if asked == OF_BASELINE
                else find_base(self._root, asked, target=target)
            )
        return self._base

    def check(self) -> None:
        """Before any work: a base that was asked for is there. Raises `UsageError`."""
        if (why := self.base.why) and self._shop.settings.base != OF_BASELINE:
            # Without a repository a run is whole as it is; in one that git does not read, something is wrong.
            fix = "" if why == NO_REPOSITORY else self.base.fix
            self._say(f"no base commit: {why}" + (f"; {fix}" if fix else ""))

    def engine(self, result: CaseResult, mode: Mode) -> BaseEngine | str:
        """Base's engine of a case to launch in this mode, or why none can be had."""
        stored = self._shop.baselines.cases.get(result.case.id)
        if stored is None:
            return "no baseline is stored for it"
        key = (result.case.id, mode)
        if key not in self._found:
            self._found[key] = self._engine(result, stored, mode)
        return self._found[key]

    def _engine(self, result: CaseResult, stored: Stored, mode: Mode) -> BaseEngine | str:
        base = self._commit_of(stored)
        if isinstance(base, Base):
            return self._stored_engine(result, stored, mode, base.why)
        self._say(f"{result.case.id}: the engine of base {base.sha[:12]}, built or from the cache")
        try:
            return self._rebuilt(result, stored, mode, base)
        except PerfgateError as error:
            # Base's trouble is not head's: without its engine the stored numbers have to do.
            why = f"the engine of base {base.sha[:12]} cannot be had: {error.what}"
            return self._stored_engine(result, stored, mode, why)

    def _commit_of(self, stored: Stored) -> Commit | Base:
        if self._shop.settings.base != OF_BASELINE:
            return self.base.commit if self.base.commit.sha else self.base
        try:
            return resolve(self._root, stored.case.commit or "(none recorded)")
        except PerfgateError as error:
            return Base(why=f"the baseline's own commit is not here: {error.what}")

    def _stored_engine(self, result: CaseResult, stored: Stored, mode: Mode, why: str) -> BaseEngine | str:
        """The baseline's very engine, where this machine still has it; else why nothing can be launched."""
        kept = self._engines.find(stored.case.engine_digest) if stored.case.engine_digest else None
        if kept is None or stored.case.usage_digest != result.usage_digest:
            return why
        folder = str((self._root / result.case.source).parent.resolve())
        note = f"base is the baseline's own engine, from the engine cache, because {why}"
        return BaseEngine(job=self._job(result.case, mode, kept, folder), notes=(note,))

    def _rebuilt(self, result: CaseResult, stored: Stored, mode: Mode, base: Commit) -> BaseEngine | str:
        found = self.of_commit(result, mode, base)
        if isinstance(found, str):
            return self._stored_engine(result, stored, mode, found)
        return found

    def of_commit(
        self, result: CaseResult, mode: Mode, base: Commit, place: Path | None = None
    ) -> BaseEngine | str:
        """The engine of a case as a commit has it, or as the files at `place` have it; or why it has none.

        Raises `PerfgateError` where it cannot be built.
        """
        place = place or self._place(base.sha)
        path = place / result.case.source
        if not path.is_file():
            return f"base {base.sha[:12]} has no {result.case.source}"
        spec = read_spec(path)
        case = next((one for one in self._cases(spec) if one.id == result.case.id), None)
        if case is None:
            return f"base {base.sha[:12]} does not make this case"
        preparation = self._preparation(place)
        described, request = preparation.one_case(spec, case)
        stored = self._shop.baselines.cases.get(result.case.id)
        if why := _unversioned(preparation.sources.used.get(spec.name, {}), described, stored):
            return why
        built = self.build(request)
        job = self._job(case, mode, built, str(spec.folder.resolve()))
        return BaseEngine(
            job=msgspec.structs.replace(job, request=request, onnx_digest=request.recipe.onnx_digest),
            commit=base,
            notes=_notes(result, described, stored, built[1]),
        )

    def _preparation(self, place: Path) -> Preparation:
        """What makes the models of a place, made once: a model then is."""
        if place not in self._preparations:
            settings = dataclasses.replace(
                self._shop.settings,
                root=str(place),
                remeasure=False,
                store=str(self._shop.settings.path("store").resolve()),
            )
            self._preparations[place] = Preparation(
                settings,
                self._backend,
                self._shop.environment,
                self._shop.baselines,
                self._say,
                other_checkout(self._root, place),
            )
        return self._preparations[place]

    def build(self, request: BuildRequest) -> tuple[Path, EngineFacts]:
        """An engine on base's side, from the cache or built. Raises `CaseError`."""
        return self._engines.get(request, timeout_s=self._shop.settings.build_timeout_s)

    def prefer(self, result: CaseResult, mode: Mode, base: BaseEngine) -> None:
        """From now on this is base's engine of the case: the best of several builds."""
        self._found[result.case.id, mode] = base

    def _place(self, sha: str) -> Path:
        if sha not in self._places:
            self._places[sha] = self._stack.enter_context(worktree(self._root, sha))
        return self._places[sha]

    def _job(self, case: Case, mode: Mode, engine: tuple[Path, EngineFacts], folder: str) -> Job:
        target = EngineTarget(
            engine=str(engine[0].resolve()),
            case=msgspec.structs.replace(case, mode=mode),
            folder=folder,
            device=self._shop.settings.device,
        )
        return Job(case_id=case.id, target=target, protocol=self._shop.protocol, engine=engine[1])


def _unversioned(manifests: Mapping[str, Manifest], base: CaseResult, stored: Stored | None) -> str:
    """Why what was made for base is not what base was: it was made from more than the commit holds, and is
    another today. Empty where it may be taken."""
    graph = base.recipe.onnx_digest if base.recipe else ""
    if stored is None or stored.case.onnx_digest in ("", graph):
        return ""
    for manifest in manifests.values():
        if reason := next((one for one in manifest.open if one.code in ("outside", "network")), None):
            return (
                f"base's {manifest.script} makes another model today, from {reason.value}, "
                "which no commit holds"
            )
    return ""


def _notes(head: CaseResult, base: CaseResult, stored: Stored | None, facts: EngineFacts) -> tuple[str, ...]:
    notes = []
    if stored is None:
        pass  # nothing is promoted that base could be held against
    elif base.case_digest != stored.case.case_digest:
        notes.append("base's model or recipe is not the one that the baseline was promoted from")
    elif stored.case.engine_digest and stored.case.engine_digest != facts.digest:
        notes.append(
            f"base does not reproduce its recorded engine: {facts.digest[:12]} in place of "
            f"{stored.case.engine_digest[:12]}"
        )
    if base.usage_digest != head.usage_digest:
        notes.append("base is used otherwise than head: inputs, shape or protocol differ")
    return tuple(notes)
