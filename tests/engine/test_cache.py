from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_models import write

from perfgate.engine.cache import EngineCache, _Waiting
from perfgate.engine.interface import PROGRESS_PREFIX, BuildRequest
from perfgate.errors import CaseError, OutputError
from perfgate.records import Recipe
from perfgate.util.files import file_digest
from perfgate.util.process import package_environment

TIMEOUT_S = 120.0


def request(folder: Path, **options: int) -> BuildRequest:
    """A build of a small model; other options make another recipe."""
    onnx = folder / "net.onnx"
    if not onnx.exists():
        write(onnx)
    recipe = Recipe(
        backend="onnxruntime",
        onnx_digest=file_digest(onnx),
        precision="fp32",
        options={"provider": "cpu", "threads": 1, **options},
    )
    return BuildRequest(backend="onnxruntime", recipe=recipe, onnx=str(onnx), device="cpu")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, said: list[str]) -> EngineCache:
    return EngineCache(tmp_path / "engines", say=said.append)


def fresh(tmp_path: Path, said: list[str], cap_bytes: int = 1 << 30) -> EngineCache:
    """The same store, as another run sees it."""
    return EngineCache(tmp_path / "engines", cap_bytes=cap_bytes, say=said.append)


def test_a_build_takes_its_turn_before_the_entrys_lock_and_a_hit_takes_none(tmp_path: Path) -> None:
    taken: list[bool] = []

    @contextlib.contextmanager
    def turn() -> Iterator[None]:
        taken.append(any((tmp_path / "engines").glob("*/lock")))
        yield

    cache = EngineCache(tmp_path / "engines", turn=turn)
    cache.get(request(tmp_path), timeout_s=TIMEOUT_S)
    cache.get(request(tmp_path), timeout_s=TIMEOUT_S)
    assert taken == [False]


def test_a_build_that_takes_long_is_told_of_with_what_it_is_at() -> None:
    said: list[str] = []
    now = [100.0]
    waiting = _Waiting(said.append, lambda: now[0])
    for seconds, lines in (
        (0, ""),
        (19, "a warning\n"),
        (21, ""),
        (22, f"{PROGRESS_PREFIX}Tactics: step 3 of 9\n"),
        (45, f"{PROGRESS_PREFIX}Tactics: step 4 of 9\nnoise\n"),
    ):
        now[0] = 100.0 + seconds
        waiting(lines)
    assert said == ["still building after 21 s", "still building after 45 s, at Tactics: step 4 of 9"]


def test_a_recipe_is_built_once_and_then_taken_from_the_cache(
    tmp_path: Path, cache: EngineCache, said: list[str]
) -> None:
    engine, facts = cache.get(request(tmp_path), timeout_s=TIMEOUT_S)
    built = engine.stat()
    assert not facts.cached
    assert file_digest(engine) == facts.digest
    again, known = fresh(tmp_path, said).get(request(tmp_path), timeout_s=TIMEOUT_S)
    assert known.cached
    assert (again, known.digest, known.layers) == (engine, facts.digest, facts.layers)
    assert again.stat().st_mtime_ns == built.st_mtime_ns
    assert said == []


def test_another_recipe_is_another_engine(tmp_path: Path, cache: EngineCache) -> None:
    paths = {cache.get(request(tmp_path, threads=n), timeout_s=TIMEOUT_S)[0] for n in (1, 2)}
    assert len(paths) == 2


@pytest.mark.parametrize("damage", ["cut", "changed", "no engine", "facts", "facts of nothing"])
def test_a_damaged_entry_is_built_again_and_said_so(
    tmp_path: Path, cache: EngineCache, said: list[str], damage: str
) -> None:
    engine, facts = cache.get(request(tmp_path), timeout_s=TIMEOUT_S)
    data = engine.read_bytes()
    if damage == "cut":
        engine.write_bytes(data[:-1])
    elif damage == "changed":
        engine.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "no engine":
        engine.unlink()
    else:
        engine.with_name("facts.json").write_text("{" if damage == "facts" else "{}")
    again, known = fresh(tmp_path, said).get(request(tmp_path), timeout_s=TIMEOUT_S)
    assert not known.cached
    assert file_digest(again) == known.digest == facts.digest
    assert len(said) == 1
    assert "damaged" in said[0]


def test_over_the_cap_the_least_recently_used_go_and_the_one_just_used_stays(
    tmp_path: Path, cache: EngineCache, said: list[str]
) -> None:
    old, middle, new = (cache.get(request(tmp_path, threads=n), timeout_s=TIMEOUT_S)[0] for n in (1, 2, 3))
    for age, engine in ((300, old), (100, middle), (200, new)):
        stamp = engine.with_name("facts.json").stat().st_mtime - age
        os.utime(engine.with_name("facts.json"), (stamp, stamp))
    size = sum(path.stat().st_size for path in new.parent.iterdir())
    small = fresh(tmp_path, said, cap_bytes=size * 2 + size // 2)
    assert small.get(request(tmp_path, threads=3), timeout_s=TIMEOUT_S)[1].cached
    assert [engine.exists() for engine in (old, middle, new)] == [False, True, True]
    assert len(said) == 1
    assert old.parent.name in said[0]


def test_no_engine_that_was_handed_out_is_evicted_however_small_the_cap(
    tmp_path: Path, said: list[str]
) -> None:
    small = fresh(tmp_path, said, cap_bytes=1)
    engines = [small.get(request(tmp_path, threads=n), timeout_s=TIMEOUT_S)[0] for n in (1, 2)]
    assert all(engine.exists() for engine in engines)
    later = fresh(tmp_path, said, cap_bytes=1)
    kept, _ = later.get(request(tmp_path, threads=2), timeout_s=TIMEOUT_S)
    assert kept.exists()
    assert not engines[0].exists()


def test_an_evicted_engine_is_built_again(tmp_path: Path, said: list[str]) -> None:
    for threads in (1, 2, 1):
        small = fresh(tmp_path, said, cap_bytes=1)
        engine, facts = small.get(request(tmp_path, threads=threads), timeout_s=TIMEOUT_S)
        assert not facts.cached
        assert engine.exists()


TWO = """
import sys
from pathlib import Path
import msgspec
from perfgate.engine.cache import EngineCache, _Waiting
from perfgate.engine.interface import PROGRESS_PREFIX, BuildRequest
request = msgspec.json.decode(sys.argv[2], type=BuildRequest)
print("ready", flush=True)
sys.stdin.readline()
path, facts = EngineCache(Path(sys.argv[1])).get(request, timeout_s=120)
print(facts.cached, facts.digest)
"""


def test_two_processes_that_want_one_recipe_build_it_once(tmp_path: Path) -> None:
    import msgspec

    wanted = msgspec.json.encode(request(tmp_path)).decode()
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, tmp_path / "engines", wanted],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=package_environment(),
        )
        for _ in range(2)
    ]
    try:
        for process in both:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        answers = sorted(process.communicate("go\n", timeout=TIMEOUT_S)[0].split() for process in both)
    finally:
        for process in both:
            process.kill()
            process.wait()
    assert [cached for cached, _ in answers] == ["False", "True"]
    assert answers[0][1] == answers[1][1]


def test_a_build_that_fails_leaves_no_entry_and_is_tried_again(tmp_path: Path, cache: EngineCache) -> None:
    (tmp_path / "net.onnx").write_bytes(b"garbage")
    broken = request(tmp_path)
    for _ in range(2):
        with pytest.raises(CaseError, match="cannot build"):
            cache.get(broken, timeout_s=TIMEOUT_S)
    left = {path.name for path in (tmp_path / "engines").rglob("*") if path.is_file()}
    assert left <= {"lock"}


def test_a_build_that_takes_too_long_is_the_cases_fault(tmp_path: Path, cache: EngineCache) -> None:
    with pytest.raises(CaseError, match="did not end within"):
        cache.get(request(tmp_path), timeout_s=0.01)
    assert not list((tmp_path / "engines").rglob("engine"))


def test_a_store_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        EngineCache(tmp_path / "engines").get(request(tmp_path), timeout_s=TIMEOUT_S)
