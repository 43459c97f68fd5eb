"""What a build did to its timing cache: keys and tactics where TensorRT lists them, else its growth."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perfgate.engine.tensorrt.build import cache_growth, tactics, timing_keys
from perfgate.records import TimingKeys

NAMES = json.loads((Path(__file__).parent / "data" / "tensorrt_names.json").read_text())


class Cache:
    """A timing cache as 10.8 has it: keys that say themselves as text, and a value for each."""

    def __init__(self, entries: dict[str, int]) -> None:
        self.entries = entries

    def queryKeys(self) -> list[Any]:
        return [Key(text) for text in self.entries]

    def query(self, key: Any) -> Any:
        return SimpleNamespace(tacticHash=self.entries[str(key)], timingMSec=0.1)


class Key:
    """Equal to no other object, as the binding's keys are."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


class Closed(Cache):
    def queryKeys(self) -> list[Any]:
        raise RuntimeError("the cache is not editable")


def test_missed_keys_are_added_and_other_tactics_are_counted() -> None:
    before = tactics(Cache({"0xa": 1, "0xb": 2}))
    after = tactics(Cache({"0xa": 1, "0xb": 9, "0xc": 3}))
    keys = timing_keys(before, after)
    assert keys == TimingKeys(loaded=2, added=1, changed=1)
    said = cache_growth(100, 150, keys)
    assert said == "timing cache: loaded 100 bytes, grew by 50; 2 keys loaded, 1 added, 1 with another tactic"


def test_a_build_that_its_cache_told_adds_and_changes_nothing() -> None:
    known = tactics(Cache({"0xa": 1}))
    assert timing_keys(known, known) == TimingKeys(loaded=1, added=0, changed=0)


@pytest.mark.parametrize(
    "cache", [SimpleNamespace(), Closed({"0xa": 1}), Cache({})], ids=["8.5", "shut", "none"]
)
def test_without_listed_keys_hits_are_unknown_and_growth_is_told(cache: Any) -> None:
    keys = timing_keys(tactics(cache), tactics(cache))
    assert keys is None
    assert (
        cache_growth(0, 20, keys) == "timing cache: loaded 0 bytes, grew by 20; hits unknown in this version"
    )


@pytest.mark.parametrize(
    ("version", "listed"),
    [("8.5.3.1", False), ("8.6.1", False), ("10.0.1", False), ("10.8.0.43", True), ("11.4.0.106", True)],
)
def test_keys_are_listed_from_10_8_on(version: str, listed: bool) -> None:
    found = NAMES[version]["classes"]["ITimingCache"]
    assert ({"queryKeys", "query"} <= set(found)) is listed


@pytest.mark.filterwarnings("ignore")  # in TensorRT for RTX the cache itself is deprecated
def test_the_bindings_keys_say_themselves_as_text_and_its_values_hold_the_tactic() -> None:
    trt = pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    text = f"0x{'ab' * 16}"
    assert str(trt.TimingCacheKey.parse(text)) == text
    assert trt.TimingCacheValue(5, 1.0).tacticHash == 5
