"""Results and baselines come from pull requests: whatever is in the file, it is read or refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from gate_runs import SLOWER, STEADY, judged_run, seed
from hypothesis import given, settings, strategies as st

from perfgate.errors import DataError, PerfgateError
from perfgate.gate.baselines import Baselines, read_baseline
from perfgate.gate.verdict.compare_results import compare_results
from perfgate.records import Failed, NotRun, RunResult, Unchanged
from perfgate.run.outputs import read_results
from perfgate.util.files import record_json, write_text

RUN = judged_run(
    {
        "net/a": STEADY,
        "net/b": Failed(stage="build", reason="broke", stderr_tail="…"),
        "net/c": NotRun(reason="not here"),
        "net/d": Unchanged(),
    },
    Baselines(root="none"),
)
RESULTS = record_json(RUN)


@pytest.fixture(scope="module")
def baseline_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("seed")
    seed(root)
    return next(root.rglob("net.json")).read_text()


@pytest.fixture(params=["results", "baseline"])
def valid(request: pytest.FixtureRequest, tmp_path: Path, baseline_text: str) -> tuple[Path, Any]:
    """A valid file with its reader."""
    results = request.param == "results"
    path = tmp_path / ("results.json" if results else "net.json")
    path.write_text(RESULTS if results else baseline_text)
    return path, read_results if results else read_baseline


def read_or_refused(read: Callable[[Path], object], path: Path, data: bytes) -> bool:
    path.write_bytes(data)
    try:
        read(path)
    except PerfgateError as error:
        assert isinstance(error, DataError)
        assert error.exit_code == 2
        assert str(path) in str(error)
        return False
    return True


def test_a_valid_file_is_read_back_as_it_was_written(valid: tuple[Path, Any]) -> None:
    path, read = valid
    before = path.read_bytes()
    write_text(path, record_json(read(path)))
    assert path.read_bytes() == before


def test_results_are_read_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_text(path, RESULTS)
    assert read_results(path) == RUN


@pytest.mark.parametrize("kind", ["results", "baseline"])
def test_random_bytes_are_refused(tmp_path: Path, kind: str) -> None:
    read: Any = read_results if kind == "results" else read_baseline

    @settings(deadline=None, max_examples=80)
    @given(data=st.binary(max_size=400))
    def check(data: bytes) -> None:
        assert not read_or_refused(read, tmp_path / "net.json", data)

    check()


def test_any_truncation_is_refused(valid: tuple[Path, Any]) -> None:
    path, read = valid
    data = path.read_bytes()

    @settings(deadline=None, max_examples=80)
    @given(at=st.integers(0, len(data.rstrip()) - 1))
    def check(at: int) -> None:
        assert not read_or_refused(read, path, data[:at])

    check()


def test_any_single_byte_may_be_changed(valid: tuple[Path, Any]) -> None:
    path, read = valid
    data = path.read_bytes()

    @settings(deadline=None, max_examples=300)
    @given(at=st.integers(0, len(data) - 1), byte=st.integers(0, 255))
    def check(at: int, byte: int) -> None:
        read_or_refused(read, path, data[:at] + bytes([byte]) + data[at + 1 :])

    check()


HOSTILE: list[Any] = [
    0,
    1,
    -1,
    1 << 61,
    1 << 70,
    10**4000,
    1.5,
    -0.0,
    1e-320,
    1e308,
    True,
    None,
    "",
    "x" * 30_000,
    [],
    {},
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: str(value)[:12])
def test_any_value_may_be_replaced_by_any_other_and_what_is_read_can_be_compared(
    tmp_path: Path, value: object
) -> None:
    """Each value of a small run in turn: the reader refuses it, or a comparison of it does not fall over."""
    steady = RUN.cases[0]
    small = msgspec.to_builtins(msgspec.structs.replace(RUN, cases=(steady,)))
    path = tmp_path / "results.json"
    base = judged_run({"net/a": SLOWER}, Baselines(root="none"))
    for where in leaves(small, limit=70):
        changed = json.loads(json.dumps(small))
        spot = changed
        for step in where[:-1]:
            spot = spot[step]
        spot[where[-1]] = value
        if read_or_refused(read_results, path, big_json(changed)):
            compare_results(base, read_results(path), results="r")
            compare_results(read_results(path), base, results="r")


def big_json(value: object) -> bytes:
    """JSON also of integers that Python would not print."""
    import sys

    before = sys.get_int_max_str_digits() if hasattr(sys, "get_int_max_str_digits") else 0
    if before:
        sys.set_int_max_str_digits(0)
    try:
        return json.dumps(value).encode()
    finally:
        if before:
            sys.set_int_max_str_digits(before)


def leaves(value: Any, limit: int) -> list[list[Any]]:
    found: list[list[Any]] = []

    def walk(inner: Any, where: list[Any]) -> None:
        items = (
            inner.items()
            if isinstance(inner, dict)
            else enumerate(inner[:1])
            if isinstance(inner, list)
            else ()
        )
        for key, one in items:
            found.append([*where, key])
            walk(one, [*where, key])

    walk(value, [])
    assert len(found) <= limit * 2
    return found


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e400", "9" * 5000, "-1", "1" + "0" * 30]
)
def test_a_number_that_no_measurement_has_is_refused(valid: tuple[Path, Any], number: str) -> None:
    path, read = valid
    text = path.read_text()
    key = "latency_ns" if "baseline" in text[:80] else "samples_ns"
    start = text.index("[", text.index(f'"{key}"')) + 1
    path.write_text(text[:start] + number + ", " + text[start:])
    with pytest.raises(DataError, match=path.name):
        read(path)


@pytest.mark.parametrize("key", ["schema", "toolchain"])
def test_a_key_that_is_there_twice_is_refused(valid: tuple[Path, Any], key: str) -> None:
    path, read = valid
    lines = path.read_text().splitlines()
    double = next(line for line in lines if line.strip().startswith(f'"{key}": "'))
    at = lines.index(double)
    path.write_text("\n".join([*lines[:at], double.rstrip(",") + ",", *lines[at:]]))
    with pytest.raises(DataError, match=f"'{key}' is there twice"):
        read(path)


def test_an_unknown_key_is_refused_by_name(valid: tuple[Path, Any]) -> None:
    path, read = valid
    path.write_text(path.read_text().replace("{", '{\n  "surprise": 1,', 1))
    with pytest.raises(DataError, match="surprise"):
        read(path)


@pytest.mark.parametrize("schema", ["perfgate-trt/results/v2", "perfgate-trt/baseline/v0", "perfgate.v1", ""])
def test_another_schema_is_refused(valid: tuple[Path, Any], schema: str) -> None:
    path, read = valid
    lines = path.read_text().splitlines()
    lines[1] = f'  "schema": "{schema}",'
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match="schema"):
        read(path)


def test_json_that_is_nested_without_end_is_refused(valid: tuple[Path, Any]) -> None:
    path, read = valid
    for deep in ("[" * 100_000, '{"a":' * 100_000):
        path.write_text(deep)
        with pytest.raises(DataError):
            read(path)


def test_two_hundred_megabytes_are_refused_quickly(valid: tuple[Path, Any]) -> None:
    path, read = valid
    with path.open("r+b") as sink:
        sink.truncate(200 << 20)
    started = time.monotonic()
    with pytest.raises(DataError, match="larger than"):
        read(path)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("absurd", ["launches", "facts"])
def test_absurd_lengths_are_refused(tmp_path: Path, absurd: str) -> None:
    document = json.loads(RESULTS)
    if absurd == "launches":
        launches = document["cases"][0]["outcome"]["launches"]
        document["cases"][0]["outcome"]["launches"] = launches[:1] * 1001
    else:
        document["environment"]["key"] = {str(number): "x" for number in range(501)}
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="length <="):
        read_results(path)


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "lost.json", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            read_results(path)


def test_a_case_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_text(path, record_json(msgspec.structs.replace(RUN, cases=(*RUN.cases, RUN.cases[0]))))
    with pytest.raises(DataError, match="two cases 'net/a'"):
        read_results(path)


BROKEN_BASELINES: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "is the baseline of 'other'": lambda file, case: file.update(model="other"),
    "names an environment": lambda file, case: case.update(environment="lost"),
    "one equal length": lambda file, case: case["metrics"].update(latency_ns=[1]),
    "needs latency_ns": lambda file, case: case["metrics"].pop("latency_ns"),
    "below one nanosecond": lambda file, case: case["metrics"].update(latency_ns=[0, 1, 1, 1, 1]),
    "case_digest": lambda file, case: case.update(case_digest="short"),
}


@pytest.mark.parametrize("what", BROKEN_BASELINES)
def test_a_baseline_that_cannot_be_judged_against_says_where(
    tmp_path: Path, baseline_text: str, what: str
) -> None:
    document = json.loads(baseline_text)
    BROKEN_BASELINES[what](document, document["cases"]["net/fp16/b8"])
    path = tmp_path / "net.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=what) as caught:
        read_baseline(path)
    assert str(path) in str(caught.value)


def test_what_a_reader_returns_is_frozen(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_text(path, RESULTS)
    result: RunResult = read_results(path)
    with pytest.raises(AttributeError):
        result.run_id = "x"  # type: ignore[misc]


@pytest.mark.parametrize("value", [-1, -0.5, 1 << 62, 10**40, 1e308])
def test_a_stored_number_that_no_measurement_has_is_refused_in_any_metric(
    tmp_path: Path, baseline_text: str, value: float
) -> None:
    document = json.loads(baseline_text)
    document["cases"]["net/fp16/b8"]["metrics"]["p99_ns"][0] = value
    path = tmp_path / "net.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="no measurement has"):
        read_baseline(path)
