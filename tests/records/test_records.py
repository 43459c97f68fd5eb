from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from perfgate.errors import DataError
from perfgate.records import (
    Dimension,
    Environment,
    Judgement,
    Launch,
    Mode,
    Protocol,
    Recipe,
    Telemetry,
    Tolerance,
    Verdict,
    digest,
)
from perfgate.util.files import read_record, record_json

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
count = st.integers(0, (1 << 62) - 1)
positive = st.integers(1, (1 << 62) - 1)
facts = st.dictionaries(text, text, max_size=3)
launches = st.builds(
    Launch,
    samples_ns=st.lists(positive, min_size=1, max_size=5).map(tuple),
    wall_ns=positive,
    load_ns=count,
    first_inference_ns=count,
    peak_memory_bytes=count,
    other_ns=st.dictionaries(text, st.lists(count, max_size=3).map(tuple), max_size=2),
    telemetry=st.none()
    | st.builds(Telemetry, slowdowns=st.lists(text, max_size=2).map(tuple), unavailable=facts),
    invalid=st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
)
values = st.lists(st.floats(0, 1e18) | count, max_size=4).map(tuple)
records: list[st.SearchStrategy[Any]] = [
    launches,
    st.builds(Environment, device=text, toolchain=text, key=facts, noted=facts),
    st.builds(
        Judgement,
        verdict=st.sampled_from(Verdict),
        reason=text,
        base=st.dictionaries(text, values, max_size=3),
        head=st.dictionaries(text, values, max_size=3),
    ),
    st.builds(
        Recipe,
        backend=text,
        onnx_digest=st.just("ab" * 32),
        precision=st.sampled_from(["fp32", "int8+fp16"]),
        profile=st.dictionaries(
            text, st.builds(Dimension, min=positive, opt=positive, max=positive), max_size=2
        ),
        options=st.dictionaries(text, st.booleans() | count | text | st.floats(0, 1e300), max_size=3),
        versions=facts,
    ),
    st.builds(Protocol, launches=st.integers(1, 1000), warmup_ns=count),
]


@pytest.mark.parametrize(
    "strategy", records, ids=["launch", "environment", "judgement", "recipe", "protocol"]
)
def test_what_is_written_is_read_back_equal(tmp_path: Path, strategy: st.SearchStrategy[Any]) -> None:
    path = tmp_path / "record.json"

    @settings(deadline=None, max_examples=60)
    @given(record=strategy)
    def check(record: Any) -> None:
        path.write_text(record_json(record))
        again = read_record(path, type(record), limit_bytes=1 << 20)
        assert again == record
        assert record_json(again) == path.read_text()
        assert digest(again) == digest(record)

    check()


def test_the_digest_of_a_record_is_stable_and_of_its_content() -> None:
    # A stored baseline refers to records by digest: this one must not change with the code.
    assert digest(Mode()) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert digest(Mode(drive="graph")) != digest(Mode())
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})


def test_a_default_that_is_stated_changes_no_digest() -> None:
    assert digest(Mode(drive="call", streams=1)) == digest(Mode())


def test_records_are_frozen_and_take_no_unknown_fields() -> None:
    mode = Mode()
    with pytest.raises(AttributeError):
        mode.drive = "graph"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Mode(speed="fast")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        (Tolerance, {"ignore": 0, "catch": 1}),
        (Tolerance, {"ignore": "0.1", "catch": 1}),
        (Protocol, {"launches": 0}),
        (Protocol, {"launches": 1.5}),
        (Mode, {"drive": "fast"}),
        (Mode, {"streams": 65}),
        (Launch, {"samples_ns": [], "wall_ns": 1, "load_ns": 0, "first_inference_ns": 0}),
        (Launch, {"samples_ns": [0], "wall_ns": 1, "load_ns": 0, "first_inference_ns": 0}),
        (Launch, {"samples_ns": [1 << 62], "wall_ns": 1, "load_ns": 0, "first_inference_ns": 0}),
        (Launch, {"samples_ns": [1]}),
        (Environment, {"device": "", "toolchain": "x", "key": {}}),
        (Recipe, {"backend": "x", "onnx_digest": "AB" * 32, "precision": "fp32"}),
    ],
)
def test_what_does_not_fit_is_refused_with_file_and_field(
    tmp_path: Path, kind: type[Any], document: dict[str, Any]
) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError) as caught:
        read_record(path, kind, limit_bytes=1 << 20)
    assert str(path) in str(caught.value)
    assert kind.__name__ in str(caught.value)


@settings(deadline=None)
@given(samples=st.lists(st.integers(1, 1000), min_size=1, max_size=50), q=st.floats(0.01, 100))
def test_a_percentile_is_one_of_the_samples_with_enough_of_them_at_or_below(
    samples: list[int], q: float
) -> None:
    launch = Launch(samples_ns=tuple(samples), wall_ns=1, load_ns=0, first_inference_ns=0)
    value = launch.percentile_ns(q)
    assert value in samples
    assert sum(sample <= value for sample in samples) >= q / 100 * len(samples) - 1e-9
    assert sum(sample < value for sample in samples) < q / 100 * len(samples) + 1e-9


def test_the_nearest_rank_percentile_by_hand() -> None:
    launch = Launch(samples_ns=tuple(range(1, 101)), wall_ns=1, load_ns=0, first_inference_ns=0)
    assert [launch.percentile_ns(q) for q in (1, 50, 99, 99.5, 100)] == [1, 50, 99, 100, 100]
    assert launch.median_ns == 50.5


def test_a_promoted_timing_cache_does_not_make_another_model() -> None:
    recipe = Recipe(backend="tensorrt", onnx_digest="ab" * 32, precision="fp16")
    cached = msgspec.structs.replace(recipe, timing_cache_digest="cd" * 32)
    assert digest(cached) != digest(recipe)
    assert cached.model_digest() == recipe.model_digest()


def test_a_mode_in_words() -> None:
    assert str(Mode()) == "call, no transfers, block"
    assert str(Mode(drive="graph", transfers=True, wait="spin", streams=4)) == (
        "graph, transfers, spin, 4 streams"
    )


def test_a_record_as_plain_values() -> None:
    assert msgspec.to_builtins(Tolerance(ignore=0.1, catch=0.2)) == {"ignore": 0.1, "catch": 0.2}
