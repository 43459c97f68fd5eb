"""From selected cases to what must be built: digests, what is unchanged, and the ONNX files of the rest.

All models are made and held against their specs here, before anything is built.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from perfgate.engine.interface import Backend, BuildRequest, Script
from perfgate.errors import CaseError, DataError, SpecError
from perfgate.gate.baselines import Baselines, Stored, timing_path
from perfgate.measure.accuracy.check import CheckRequest
from perfgate.measure.digests import case_digest, usage_digest
from perfgate.measure.environment import differences
from perfgate.measure.launch import EngineTarget
from perfgate.model.cases import profile, skip_reason
from perfgate.model.graph import check_against_graph
from perfgate.model.onnx_file import (
    SourceModel,
    export_onnx,
    known_manifest,
    missing_requirement,
    module_source,
)
from perfgate.model.precision.convert import (
    ConvertedModel,
    convert_model,
    data_request,
    evaluation_samples,
    precision_digest,
    runtime_version,
)
from perfgate.model.precision.data import EVALUATION_SEED
from perfgate.model.scripts import script_call
from perfgate.model.sources import Sources
from perfgate.model.spec import ModelSpec
from perfgate.model.validate.messages import raise_all
from perfgate.records import (
    Case,
    CaseResult,
    EngineFacts,
    Environment,
    Failed,
    Manifest,
    Name,
    NotRun,
    Protocol,
    Recipe,
    Record,
    StageName,
    Stages,
    Unchanged,
    digest,
)
from perfgate.settings import Settings
from perfgate.util.files import file_digest

NOT_MEASURED = Failed(stage="interrupted", reason="the run ended before its first launch")


class Pending(Record):
    """A case to measure: its result so far, how to build its engine, the folder of its input files, the axes
    of its graph's inputs, and how to check its answers (None where nothing here can)."""

    result: CaseResult
    request: BuildRequest
    folder: str
    axes: dict[Name, tuple[int | str, ...]] = {}
    answers: CheckRequest | None = None


def _of_engine(result: CaseResult, engine_digest: str) -> CaseResult:
    """The case of a prebuilt engine: its bytes and how it is used are all that is known for certain."""
    identity = {"engine": engine_digest, "usage": result.usage_digest}
    return msgspec.structs.replace(result, case_digest=digest(identity))


def _stages(model: SourceModel, emission: ConvertedModel) -> Stages:
    """What the ONNX file of a case took to make, now or when what is in the store was made."""
    made: dict[StageName, tuple[int, bool]] = {}
    if model.manifest:
        made["export"] = (model.export_ns, model.cached)
    if emission.converted:
        calibration_ns = emission.calibration_ns
        made["conversion"] = (emission.total_ns - calibration_ns, emission.cached)
        if emission.calibrated:
            made["calibration"] = (calibration_ns, emission.cached)
    return Stages(
        export_ns=made.get("export", (0, False))[0] or None,
        conversion_ns=made.get("conversion", (0, False))[0] or None,
        calibration_ns=made.get("calibration", (0, False))[0] or None,
        cached=tuple(name for name, (_, cached) in made.items() if cached),
        unknown=tuple(name for name, (took_ns, _) in made.items() if not took_ns),
    )


class Preparation:
    """Prepares the cases of one run; `say` is told what takes time."""

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        environment: Environment,
        baselines: Baselines,
        say: Callable[[str], None],
        replaces: str = "",
    ) -> None:
        """`replaces` is the project of the tree under test where `settings` are of another checkout of it."""
        self._settings = settings
        self.sources = Sources(
            settings.path("store"), baselines.manifests, replaces=replaces, again=settings.remeasure
        )
        self._backend = backend
        self._environment = environment
        self._baselines = baselines
        self._protocol: Protocol = settings.protocol(backend.kind)
        self._say = say
        # Asked once: on a GPU each of these wakes the driver, and a run may have hundreds of cases.
        self._versions, self._typing = backend.versions(), backend.typing()
        self._device = backend.device()
        self._precisions: dict[tuple[str, str], str] = {}
        self._modules: dict[str, str] = {}
        self._misfits: dict[str, SpecError] = {}
        self._told: dict[tuple[str, str], Stored | None] = {}

    def all_cases(
        self, selected: Sequence[tuple[ModelSpec, Case]], *, prebuilt: str | None = None
    ) -> Iterator[tuple[CaseResult, Pending | None]]:
        """Every selected case with its digest, model by model; one that needs measuring also as pending.
        `prebuilt` is the digest of an engine that is gated in place of one built here: it is then the cases'
        identity.

        A spec that does not fit its graph, and a script that fails, are their cases' own. Raises `SpecError`
        where no spec fits.
        """
        self._misfits = {}
        by_spec: dict[str, tuple[ModelSpec, list[Case]]] = {}
        for spec, case in selected:
            by_spec.setdefault(spec.path, (spec, []))[1].append(case)
        for spec, cases in by_spec.values():
            for result, model in self._model(spec, cases, prebuilt):
                pending: Pending | None = None
                if prebuilt and model is not None:
                    result = _of_engine(result, prebuilt)
                if model is not None:
                    try:
                        pending = self._pending(spec, result, model)
                        result = pending.result
                    except (CaseError, SpecError) as error:
                        result = msgspec.structs.replace(result, outcome=self._fault(spec, error))
                yield result, pending
        if set(self._misfits) == by_spec.keys():
            raise_all(self._misfits.values())

    def _fault(self, spec: ModelSpec, error: CaseError | SpecError) -> Failed:
        """The outcome of the cases of a model that cannot be made, or does not fit its spec."""
        if isinstance(error, CaseError):
            return Failed.by("model", error)
        self._misfits[spec.path] = error
        return Failed(stage="model", reason=str(error))

    def _model(
        self, spec: ModelSpec, cases: list[Case], prebuilt: str | None
    ) -> Iterator[tuple[CaseResult, SourceModel | None]]:
        """Each case with its outcome, or with the ONNX file to build it from where it must be measured."""
        manifest: Manifest | None = None
        model: SourceModel | None = None
        failure: Failed | None = None
        for case in cases:
            if reason := self._not_run(spec, case):
                yield CaseResult(case=case, outcome=NotRun(reason=reason)), None
                continue
            try:
                manifest = manifest or (None if prebuilt else known_manifest(spec, self.sources))
                if manifest and self._is_unchanged(
                    known := self._described(spec, case, manifest.made, manifest)
                ):
                    yield msgspec.structs.replace(known, outcome=Unchanged()), None
                    continue
                if failure is None and model is None:
                    model = self._materialise(spec)
                    manifest = model.manifest
                if failure is None and model is not None:
                    described = self._of_model(spec, case, model)
            except (CaseError, SpecError) as error:
                failure = self._fault(spec, error)
            if model is None or failure is not None:
                yield CaseResult(case=case, outcome=failure or NOT_MEASURED), None
            elif not prebuilt and self._is_unchanged(described):
                yield msgspec.structs.replace(described, outcome=Unchanged()), None
            else:
                yield described, model

    def _not_run(self, spec: ModelSpec, case: Case) -> str | None:
        if not self._settings.all_cases and (
            reason := skip_reason(spec, case, device_kind=self._backend.kind)
        ):
            return reason
        return missing_requirement(spec) or self._backend.refuses(case)

    def _materialise(self, spec: ModelSpec) -> SourceModel:
        self._say(f"{spec.name}: preparing the ONNX file")
        model = export_onnx(spec, self.sources, self._say)
        check_against_graph(spec, model.graph)
        return model

    def check_missing(
        self, missing: Sequence[CaseResult], plan: Sequence[tuple[ModelSpec, Case]], selected: Sequence[Case]
    ) -> None:
        """Cases may be missing because their spec does not fit its graph: that is said first.

        Only specs without a selected case are looked at, the others are prepared all the same. Raises
        `SpecError`.
        """
        gone = {ghost.case.model for ghost in missing} - {case.model for case in selected}
        for spec in {spec.path: spec for spec, _ in plan if spec.name in gone}.values():
            if any(self._not_run(spec, case) is None for one, case in plan if one.path == spec.path):
                # A script that fails is its cases' own fault, and none of them is asked for.
                with contextlib.suppress(CaseError):
                    self._materialise(spec)

    def _of_model(self, spec: ModelSpec, case: Case, model: SourceModel) -> CaseResult:
        described = self._described(spec, case, model.graph.onnx_digest, model.manifest)
        return msgspec.structs.replace(described, file_digest=model.graph.file_digest)

    def _described(
        self, spec: ModelSpec, case: Case, onnx_digest: str, manifest: Manifest | None
    ) -> CaseResult:
        """The case with its identity. Raises `CaseError` for a data script that fails."""
        source = digest(manifest) if manifest and manifest.closed else ""
        if not self._backend.takes_graph():
            source = self._module_source(spec)
        recipe = Recipe(
            backend=self._backend.name,
            onnx_digest=onnx_digest,
            precision=case.precision,
            precision_digest=self._precision_digest(spec, case),
            profile=profile(spec),
            plugins=tuple(file_digest(spec.folder / plugin) for plugin in spec.plugins),
            options={**self._backend.build_options(source), **spec.options},
            versions=self._versions,
            typing=self._typing,
            device=self._device,
            timing_cache_digest=self._timing_digest(case),
        )
        return CaseResult(
            case=case,
            outcome=NOT_MEASURED,
            case_digest=case_digest(case, recipe, self._protocol),
            usage_digest=usage_digest(case, self._protocol),
            recipe=recipe,
            source_digest=source,
        )

    def _module_source(self, spec: ModelSpec) -> str:
        if spec.path not in self._modules:
            self._modules[spec.path] = module_source(spec, self.sources) if spec.source.script else ""
        return self._modules[spec.path]

    def _is_unchanged(self, described: CaseResult) -> bool:
        stored = self._comparable(described.case)
        return (
            stored is not None
            and not self._settings.remeasure
            and stored.case.case_digest == described.case_digest
        )

    def one_case(self, spec: ModelSpec, case: Case) -> tuple[CaseResult, BuildRequest]:
        """One case with the request for its engine, whatever the baseline says. Raises `CaseError`."""
        if reason := missing_requirement(spec) or self._backend.refuses(case):
            raise CaseError(f"{case.id}: {reason}")
        model = self._materialise(spec)
        result = self._of_model(spec, case, model)
        item = self._pending(spec, result, model)
        return item.result, item.request

    def graphs(self, spec: ModelSpec, case: Case) -> CheckRequest | None:
        """The case's graphs and the data that its answers are judged on. Raises `CaseError`."""
        model = self._materialise(spec)
        emission = convert_model(spec, model, case.precision, self._typing, self.sources)
        return self._check(spec, case, model, emission)

    def same_engine(self, result: CaseResult, facts: EngineFacts) -> bool:
        """Is the engine that was built the baseline's, byte for byte, in its environment and used alike?"""
        stored = self._comparable(result.case)
        return (
            stored is not None
            and not self._settings.remeasure
            and stored.case.engine_digest == facts.digest
            and stored.case.usage_digest == result.usage_digest
        )

    def _comparable(self, case: Case) -> Stored | None:
        """The stored case, where its environment's key is ours."""
        stored = self._baselines.cases.get(case.id)
        if stored is None or differences(stored.environment.key, self._environment.key):
            return None
        return stored

    def _timing_digest(self, case: Case) -> str:
        stored = self._timing_source(case.model, case.precision)
        return stored.case.timing_cache if stored else ""

    def _timing_source(self, model: str, precision: str) -> Stored | None:
        """A stored case of this model and precision in this environment, with the timing cache that they
        share: a case that is new beside them is served by the same engine. One that names the file as it is
        comes first."""
        key = model, precision
        if key not in self._told:
            found = [
                stored
                for case_id, stored in self._baselines.cases.items()
                if case_id.split("/")[:2] == [model, precision]
                and stored.case.timing_cache
                and not differences(stored.environment.key, self._environment.key)
            ]
            if len({stored.case.timing_cache for stored in found}) > 1:
                path = timing_path(Path(found[0].path), model, precision)
                there = file_digest(path) if path.is_file() else ""
                found.sort(key=lambda stored: stored.case.timing_cache != there)
            self._told[key] = found[0] if found else None
        return self._told[key]

    def _precision_digest(self, spec: ModelSpec, case: Case) -> str:
        if not self._backend.takes_graph():
            return ""
        key = (spec.path, case.precision)
        if key not in self._precisions:
            self._precisions[key] = precision_digest(spec, case.precision, self._typing, self.sources)
        return self._precisions[key]

    def _pending(self, spec: ModelSpec, result: CaseResult, model: SourceModel) -> Pending:
        """The case with the graph of its precision, converted here if need be. Raises `CaseError`."""
        emission = ConvertedModel(path=model.path)
        if self._backend.takes_graph():
            precision = result.case.precision
            emission = convert_model(spec, model, precision, self._typing, self.sources, self._say)
        return Pending(
            result=msgspec.structs.replace(result, stages=_stages(model, emission)),
            request=self._request(spec, result, model, emission),
            folder=str(spec.folder.resolve()),
            axes={tensor.name: tensor.axes for tensor in model.graph.inputs},
            answers=self._check(spec, result.case, model, emission),
        )

    def _check(
        self, spec: ModelSpec, case: Case, model: SourceModel, emission: ConvertedModel
    ) -> CheckRequest | None:
        runtime = runtime_version()
        if runtime == "absent" or spec.plugins:
            return None
        data = evaluation_samples(spec, self.sources)
        metric = spec.accuracy.metric
        on_cpu = self._backend.name == "onnxruntime" and self._backend.kind == "cpu"
        return CheckRequest(
            target=EngineTarget(
                engine="", case=case, folder=str(spec.folder.resolve()), device=self._settings.device
            ),
            onnx=model.path,
            onnx_digest=model.graph.onnx_digest,
            emitted=emission.path,
            data=data_request(
                spec,
                model.graph,
                case.shape,
                data.path,
                samples=spec.accuracy.samples,
                seed=EVALUATION_SEED,
                first_as_is=True,
            ),
            data_identity=data.identity,
            metric=script_call(spec, metric, "score", {}, replaces=self.sources.replaces) if metric else None,
            faithful=on_cpu and case.precision.endswith("fp16"),
            runtime=runtime,
            timeout_s=self._settings.launch_timeout_s,
            notes=emission.notes,
        )

    def _request(
        self, spec: ModelSpec, result: CaseResult, model: SourceModel, emission: ConvertedModel
    ) -> BuildRequest:
        """How to build the case's engine, with the baseline's timing cache where there is one."""
        recipe = result.recipe
        assert recipe is not None
        timing = ""
        stored = self._timing_source(spec.name, recipe.precision)
        if stored and recipe.timing_cache_digest:
            path = timing_path(Path(stored.path), spec.name, recipe.precision)
            if not path.is_file() or file_digest(path) != recipe.timing_cache_digest:
                raise DataError(
                    "is not the timing cache that the baseline names",
                    where=path,
                    fix="restore it from git, or promote the case anew",
                )
            timing = str(path.resolve())
        source = spec.source
        script = Script(path=str((spec.folder / source.script).resolve()), seed=source.seed, args=source.args)
        return BuildRequest(
            backend=recipe.backend,
            recipe=recipe,
            onnx=emission.path,
            islands=emission.islands,
            device=self._settings.device,
            script=script if source.script else None,
            timing_cache=timing,
            plugins=tuple(str((spec.folder / plugin).resolve()) for plugin in spec.plugins),
        )
