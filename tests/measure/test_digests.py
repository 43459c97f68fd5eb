from __future__ import annotations

from typing import Any

import msgspec
import pytest

from perfgate.measure.digests import case_digest
from perfgate.measure.environment import MATTERING_VARIABLES, differences, slug
from perfgate.records import Case, Dimension, InputData, Mode, Protocol, Recipe, Slo, Tolerance

CASE = Case(
    id="net/fp16/b8",
    model="net",
    backend="tensorrt",
    precision="fp16",
    shape={"b": 8},
    inputs={"x": InputData(seed=1)},
    tolerance=Tolerance(ignore=0.005, catch=0.02),
)
RECIPE = Recipe(
    backend="tensorrt",
    onnx_digest="ab" * 32,
    precision="fp16",
    profile={"b": Dimension(min=1, opt=8, max=32)},
    options={"level": 3},
    versions={"tensorrt": "10.13"},
    device="NVIDIA H200",
)
PROTOCOL = Protocol()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MATTERING_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def digest(case: Any = None, recipe: Any = None, protocol: Any = None) -> str:
    """The digest with some fields replaced."""
    return case_digest(
        msgspec.structs.replace(CASE, **(case or {})),
        msgspec.structs.replace(RECIPE, **(recipe or {})),
        msgspec.structs.replace(PROTOCOL, **(protocol or {})),
    )


@pytest.mark.parametrize(
    "change",
    [
        {"case": {"shape": {"b": 1}}},
        {"case": {"mode": Mode(drive="graph")}},
        {"case": {"mode": Mode(transfers=True)}},
        {"case": {"inputs": {"x": InputData(seed=2)}}},
        {"case": {"inputs": {"x": InputData(seed=1, file_digest="cd")}}},
        {"case": {"inputs": {}}},
        {"recipe": {"backend": "onnxruntime"}},
        {"recipe": {"onnx_digest": "cd" * 32}},
        {"recipe": {"precision": "int8"}},
        {"recipe": {"typing": "weak"}},
        {"recipe": {"profile": {"b": Dimension(min=1, opt=8, max=64)}}},
        {"recipe": {"plugins": ("cd" * 32,)}},
        {"recipe": {"options": {"level": 5}}},
        {"recipe": {"versions": {"tensorrt": "11.0"}}},
        {"recipe": {"device": "NVIDIA H100"}},
        {"protocol": {"warmup_ns": 1}},
        {"protocol": {"duration_ns": 1}},
        {"protocol": {"min_samples": 9}},
        {"protocol": {"max_samples": 9}},
    ],
    ids=str,
)
def test_what_is_measured_decides_the_digest(change: dict[str, Any]) -> None:
    assert digest(**change) != digest()


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": {"launches": 12}},
        {"protocol": {"timeout_s": 9}},
        {"case": {"tolerance": Tolerance(ignore=0.1, catch=0.3)}},
        {"case": {"slo": Slo(engine_p99_ms=1.0)}},
        {"case": {"source": "elsewhere/net.toml"}},
        {"recipe": {"timing_cache_digest": "cd" * 32}},
    ],
    ids=str,
)
def test_how_well_it_is_known_and_how_it_is_judged_does_not(change: dict[str, Any]) -> None:
    assert digest(**change) == digest()


@pytest.mark.parametrize("name", MATTERING_VARIABLES)
def test_a_variable_that_changes_a_librarys_speed_changes_the_digest(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = digest()
    monkeypatch.setenv(name, "1")
    first = digest()
    monkeypatch.setenv(name, "2")
    assert len({before, first, digest()}) == 3


def test_a_variable_that_does_not_matter_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest()
    monkeypatch.setenv("GITHUB_SHA", "abc")
    assert digest() == before


def test_differences_name_each_field_once_sorted_with_what_a_side_lacks() -> None:
    found = differences({"b": "1", "same": "x", "gone": "y"}, {"b": "2", "same": "x", "a": "z"})
    assert [(d.field, d.base, d.head) for d in found] == [
        ("a", "absent", "z"),
        ("b", "1", "2"),
        ("gone", "y", "absent"),
    ]
    assert differences({"a": "1"}, {"a": "1"}) == ()


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("NVIDIA H200", "nvidia-h200"),
        ("cpu Intel(R) Xeon(R) @ 2.20GHz x2", "cpu-intel-r-xeon-r-2.20ghz-x2"),
        ("../../etc", "etc"),
        ("..", ""),
    ],
)
def test_a_folders_name_is_plain(text: str, folder: str) -> None:
    assert slug(text) == folder
