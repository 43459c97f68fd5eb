"""Runs a script of the user's, observed, and keeps what it made by its manifest: a call whose inputs are
unchanged is not made again."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from perfgate.errors import CaseError, DataError, PerfgateError
from perfgate.model.content import content_digest
from perfgate.model.manifest import ScriptCall, difference, make_manifest
from perfgate.records import Manifest, OpenReason, Record, digest
from perfgate.util.files import read_record, record_json, store_folder, store_lock, write_text
from perfgate.util.interpreter import python_folders
from perfgate.util.observe import Observer
from perfgate.util.process import given_variables, run_child, scrubbed_environment

_LIMIT_BYTES = 4 << 20
_DIGESTS, _MANIFESTS, _FILES = "digests", "manifests", "files.json"
# Where the results of a function are kept.
_FOLDERS = {"write_onnx": "models", "torch_module": "modules", "samples": "data", "score": "scores"}


class ScriptRun(Record, kw_only=True):
    """How to run a call: the module of the child with its request, the time limit, what is said of a script
    that fails, and the file or folder (relative to the child's folder) that it must leave."""

    module: str
    request: dict[str, Any]
    result: str
    timeout_s: float
    what: str
    fix: str


class Made(Record):
    """What a call made: `place` holds the result; `cached` says that this was not now."""

    place: str
    manifest: Manifest
    cached: bool = False


def digest_cache(store: Path) -> Path:
    """Where the digests of large files are kept."""
    return store / _DIGESTS


def still_holds(call: ScriptCall, manifests: Iterable[Manifest], store: Path) -> Manifest | None:
    """The first closed manifest of a call whose inputs are all unchanged."""
    variables = given_variables(call.environment)
    for manifest in manifests:
        known = manifest.key == call.key and manifest.closed
        if known and not difference(manifest, call, variables, digest_cache(store)):
            return manifest
    return None


class ResultKind(Protocol):
    """What a kind of result is known by."""

    def identify(self, result: Path) -> str:
        """The digest of a result folder that was just made; what is not part of the result may be removed
        from it, and facts written into it. Raises `PerfgateError` for one that is of no use."""

    def first_difference(self, place: Path, result: Path) -> str:
        """Names what differs first between a result in the store and one that was just made."""


def make(
    call: ScriptCall,
    run: ScriptRun,
    store: Path,
    kind: ResultKind,
    *,
    manifests: Iterable[Manifest] = (),
    again: bool = False,
) -> Made:
    """The result of a call, from the store where its inputs are unchanged, else made now.

    `manifests` are known beside the store's. With `again` it is made now in any case; a result that differs
    though its inputs are equal leaves the manifest open, now and later. Raises `CaseError` for a script that
    fails.
    """
    home = store / _FOLDERS[call.call] / call.key[:32]
    with store_lock(home):
        known = _known(home)
        if not again and (held := still_holds(call, known, store)):
            place = home / held.made[:32]
            if _complete(place, digest_cache(store)):
                return Made(place=str(place), manifest=held, cached=True)
        with tempfile.TemporaryDirectory(prefix="run-", dir=home) as name:
            made = run_script(call, run, Path(name).resolve(), store, kind.identify)
            result = Path(name) / run.result
            if reason := _irreproducible(
                made, [*known, *manifests], home, lambda place: kind.first_difference(place, result)
            ):
                made = msgspec.structs.replace(made, open=(*made.open, reason))
            place = home / made.made[:32]
            if not _complete(place, digest_cache(store)):
                shutil.rmtree(place, ignore_errors=True)
                _keep(result, place)
            if made.closed or made.irreproducible:
                write_text(home / _MANIFESTS / f"{digest(_inputs(made))[:32]}.json", record_json(made))
    return Made(place=str(place), manifest=made)


def _irreproducible(
    made: Manifest, known: Iterable[Manifest], home: Path, name: Callable[[Path], str]
) -> OpenReason | None:
    """Why the same inputs are known to make different results; None where they are not."""
    for before in known:
        if _inputs(before) == _inputs(made) and not made.open:
            if before.irreproducible:
                return before.irreproducible
            if before.closed and before.made != made.made:
                place = home / before.made[:32]
                return OpenReason(code="irreproducible", value=name(place) if place.is_dir() else before.made)
    return None


def run_script(
    call: ScriptCall, run: ScriptRun, room: Path, store: Path, identify: Callable[[Path], str]
) -> Manifest:
    """Run a call in a child with a scrubbed environment and the temporary folder `room`, where it leaves
    `run.result`. Returns what it read; `identify` digests the result. Raises `CaseError` for a script that
    fails."""
    request = {**run.request, "script": call.script, "project": call.project, "replaces": call.replaces}
    (room / "request.json").write_text(json.dumps(request))
    observer = Observer(quiet=python_folders())
    try:
        child = run_child(
            [sys.executable, "-m", run.module, room / "request.json"],
            timeout_s=run.timeout_s,
            env=scrubbed_environment(home=room, more=call.environment),
            cwd=room,
            observer=observer,
        )
    finally:
        seen = observer.finish()
    if child.failure:
        raise CaseError(f"{run.what} {child.last_words}", stderr_tail=child.stderr_tail, fix=run.fix)
    try:
        made = identify(room / run.result)
    except CaseError as error:
        error.stderr_tail = child.stderr_tail
        raise
    variables = given_variables(call.environment)
    return make_manifest(call, seen, variables, room=room, made=made, cache=digest_cache(store))


def _keep(result: Path, place: Path) -> None:
    """Move a result into the store, with the list of its files' digests last: it makes the result whole."""
    files = sorted(path for path in result.iterdir() if path.is_file() and not path.is_symlink())
    listed = {path.name: content_digest(path) for path in files}
    store_folder(place)
    for path in files:
        path.replace(place / path.name)
    write_text(place / _FILES, record_json(listed))


def _complete(place: Path, cache: Path) -> bool:
    """Whether a result in the store is there as it was made."""
    try:
        listed = read_record(place / _FILES, dict[str, str], limit_bytes=_LIMIT_BYTES)
        return all(content_digest(place / name, cache) == value for name, value in listed.items())
    except (PerfgateError, OSError):
        return False


def _inputs(manifest: Manifest) -> Manifest:
    return msgspec.structs.replace(manifest, made="", open=())


def _known(home: Path) -> list[Manifest]:
    """The manifests in the store, the newest first; a damaged one counts as none."""
    found = []
    for path in sorted((home / _MANIFESTS).glob("*.json"), key=lambda path: -path.stat().st_mtime_ns):
        with contextlib.suppress(DataError, OSError):
            found.append(read_record(path, Manifest, limit_bytes=_LIMIT_BYTES))
    return found
