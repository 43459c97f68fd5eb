"""The engine cache: one folder a recipe digest under `.perfgate/engines`, checked on every load.

    <recipe digest>/engine        the serialised engine
    <recipe digest>/facts.json    what was built, with the engine's SHA-256

A damaged entry is rebuilt, and said so. The least recently used entries go when the cache is over its cap.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from perfgate.engine import plugin_libraries as plugins
from perfgate.engine.interface import PROGRESS_PREFIX, BuildRequest
from perfgate.errors import DataError
from perfgate.records import EngineFacts, digest
from perfgate.util.files import file_digest, read_record, record_json, store_lock, write_text
from perfgate.util.interpreter import HERE, Interpreter
from perfgate.util.process import call_child

DEFAULT_CAP_BYTES = 6 << 30
_FACTS_LIMIT_BYTES = 64 << 20
_TELL_EVERY_S = 20.0


class _Waiting:
    """Tells every so often that a build goes on, and what it is at where the child says."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._began_s = self._said_s = clock()
        self._step = ""

    def __call__(self, lines: str) -> None:
        steps = [line for line in lines.splitlines() if line.startswith(PROGRESS_PREFIX)]
        self._step = steps[-1].removeprefix(PROGRESS_PREFIX) if steps else self._step
        now_s = self._clock()
        if now_s - self._said_s >= _TELL_EVERY_S:
            self._said_s = now_s
            at = f", at {self._step}" if self._step else ""
            self._say(f"still building after {now_s - self._began_s:.0f} s{at}")


class EngineCache:
    """Engines by recipe. `say` is told about damaged entries, evictions and builds; `turn` is held while an
    engine is built, so that nobody measures beside it."""

    def __init__(
        self,
        root: Path,
        *,
        cap_bytes: int = DEFAULT_CAP_BYTES,
        say: Callable[[str], None] = lambda _: None,
        python: Interpreter = HERE,
        turn: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._root = root
        self._cap_bytes = cap_bytes
        self._say = say
        self._python = python
        self._turn = turn
        self._in_use: set[Path] = set()

    def get(self, request: BuildRequest, *, timeout_s: float) -> tuple[Path, EngineFacts]:
        """The engine of a request's recipe, built in a child process when it is not there. The timing cache
        that the build left lies beside it as `timing`, where the backend has one.

        Raises `CaseError` when it does not build, crashes the child or exceeds `timeout_s`.
        """
        home = self._root / digest(request.recipe)[:32]
        self._in_use.add(home)
        # The turn comes first: whoever has it may want the same engine, and would wait for us.
        turn = contextlib.nullcontext() if (home / "facts.json").is_file() else self._turn()
        with turn, store_lock(home):
            found = self._load(home)
            if found is None:
                self._build(home, request, timeout_s)
                found = read_record(home / "facts.json", EngineFacts, limit_bytes=_FACTS_LIMIT_BYTES)
            os.utime(home / "facts.json")
        self._evict()
        return home / "engine", found

    def find(self, engine_digest: str) -> tuple[Path, EngineFacts] | None:
        """An engine that this machine built before, by the SHA-256 of its bytes; None where it is gone."""
        for facts in sorted(self._root.glob("*/facts.json")):
            with contextlib.suppress(DataError):
                known = read_record(facts, EngineFacts, limit_bytes=_FACTS_LIMIT_BYTES)
                if known.digest == engine_digest and (found := self._load(facts.parent)):
                    self._in_use.add(facts.parent)
                    return facts.parent / "engine", found
        return None

    def _load(self, home: Path) -> EngineFacts | None:
        facts, engine = home / "facts.json", home / "engine"
        if not facts.is_file():
            return None
        try:
            known = read_record(facts, EngineFacts, limit_bytes=_FACTS_LIMIT_BYTES)
        except DataError:
            known = None
        timing = home / "timing"
        whole = known is not None and (
            (engine.is_file() and file_digest(engine) == known.digest)
            and (
                not known.timing_cache_digest
                or (timing.is_file() and file_digest(timing) == known.timing_cache_digest)
            )
        )
        if known is None or not whole:
            self._say(f"the cached engine in {home} is damaged: building it again")
            return None
        return msgspec.structs.replace(known, cached=True)

    def _build(self, home: Path, request: BuildRequest, timeout_s: float) -> None:
        with tempfile.TemporaryDirectory(prefix="build-", dir=home) as name:
            fresh, timing = Path(name) / "engine", Path(name) / "timing"
            request = msgspec.structs.replace(request, engine=str(fresh), timing_cache_out=str(timing))
            facts = call_child(
                "perfgate.engine.child",
                request,
                EngineFacts,
                timeout_s=timeout_s,
                python=self._python,
                heard=_Waiting(self._say),
            )
            facts = msgspec.structs.replace(facts, onnx_digest=request.recipe.onnx_digest)
            if timing.is_file():
                facts = msgspec.structs.replace(facts, timing_cache_digest=file_digest(timing))
                timing.replace(home / "timing")
            plugins.move(fresh, home / "engine")
            fresh.replace(home / "engine")
            write_text(home / "facts.json", record_json(facts))

    def _evict(self) -> None:
        """Remove the least recently used entries over the cap, but none that this cache has handed out."""
        entries = []
        for facts in self._root.glob("*/facts.json"):
            with contextlib.suppress(OSError):
                used = sum(f.stat().st_size for f in facts.parent.iterdir() if f.is_file())
                entries.append((facts.stat().st_mtime, used, facts.parent))
        total = sum(used for _, used, _ in entries)
        for _, used, home in sorted(entries):
            if total <= self._cap_bytes or home in self._in_use or not _removed(home):
                continue
            total -= used
            self._say(f"the engine cache was over {self._cap_bytes >> 20} MiB: removed {home.name}")


def _removed(home: Path) -> bool:
    """Remove an entry unless somebody is at it. Its lock file stays: another process may wait for it."""
    with contextlib.suppress(OSError, Timeout), FileLock(home / "lock", timeout=0):
        (home / "facts.json").unlink()
        for name in ("engine", "timing"):
            (home / name).unlink(missing_ok=True)
        shutil.rmtree(home / plugins.FOLDER, ignore_errors=True)
        return True
    return False
