"""Whatever a results file says is shown as text; no record that the schema admits breaks a renderer."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from perfgate.records import RESULTS_SCHEMA, Record, RunResult, Verdict
from perfgate.report import FORMATS, render

EVIL = (
    "<script>alert(1)</script>|`rm`*_[x](javascript:y) @team #1 GH-2 https://evil.example "
    "&lt; \x1b[31m\x07\n# h\u202e"
)


BIG = "<b>@x | y; z: " * 333_334
# Fields whose text is one of a closed set.
CLOSED = (
    "schema",
    "sha",
    "precision",
    "typing",
    "stage",
    "kind",
    "evidence",
    "drive",
    "wait",
    "digest",
)


def poison(value: Any, name: str = "") -> Any:
    """The same record with `EVIL` behind every free text in it, keys of mappings included."""
    if isinstance(value, Record):
        fields = {field: poison(getattr(value, field), field) for field in value.__struct_fields__}
        return type(value)(**fields)
    if isinstance(value, tuple):
        return tuple(poison(item, name) for item in value)
    if isinstance(value, dict):
        return {
            poison(key) if name not in ("base", "head") else key: poison(item) for key, item in value.items()
        }
    if type(value) is str and name not in CLOSED:
        return value + EVIL
    return value


def test_hostile_text_stays_text_in_html(run: RunResult) -> None:
    text = render(poison(run), "html")
    assert text.count("<script") == 1 and "\x1b" not in text and "\u202e" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 50
    assert not re.search(r'(href|src)="(?!#c\d|#cases")', text)


def test_hostile_text_stays_text_in_markdown(run: RunResult) -> None:
    text = render(poison(run), "markdown")
    own_tags = {
        "<code>",
        "</code>",
        "<br>",
        "<sub>",
        "</sub>",
        "<details>",
        "</details>",
        "<summary>",
        "</summary>",
    }
    assert set(re.findall(r"<[^>]*>", text)) <= own_tags
    assert not re.search(r"[`@\[\]\x1b\u202e]", text)
    outside = re.sub(r"<code>.*?</code>", "", text)
    assert "&#64;&#8203;team" in outside and "&#35;&#8203;1" in outside
    assert "GH-2" not in outside and "://evil" not in outside
    assert not re.search(r"^#", text, re.MULTILINE)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {9}


def test_hostile_text_stays_text_in_the_terminal(run: RunResult) -> None:
    text = render(poison(run), "terminal")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert "alert(1)" in text


def big(value: Any, name: str = "") -> Any:
    """The same record with one and the same text of 5 MB in every free text."""
    if isinstance(value, Record):
        return type(value)(**{field: big(getattr(value, field), field) for field in value.__struct_fields__})
    if isinstance(value, tuple):
        return tuple(big(item, name) for item in value)
    if isinstance(value, dict):
        return {key: big(item) for key, item in value.items()}
    return BIG if type(value) is str and name not in CLOSED else value


@pytest.mark.parametrize("format_", ["html", "markdown", "terminal"])
def test_texts_of_five_megabytes_are_bounded(run: RunResult, format_: str) -> None:
    text = render(big(run), format_, "zh-CN")
    assert len(text.encode()) < (60_000 * 4 if format_ == "markdown" else 1_500_000)
    assert "…" in text


names = st.text(min_size=1, max_size=40)
texts = st.text(max_size=60) | st.sampled_from([EVIL, "{{ 7 * 7 }}", "[bold]x[/bold]", "[/]"])
floats = st.floats(allow_nan=False, allow_infinity=False)


def _results() -> st.SearchStrategy[RunResult]:
    def build(data: bytes) -> RunResult:
        return msgspec.json.decode(data, type=RunResult)

    interval = st.fixed_dictionaries(
        {"estimate": floats, "low": floats, "high": floats, "confidence": st.floats(0, 1)}
    )
    numbers = st.lists(floats | st.integers(-(2**62), 2**62), max_size=4)
    columns = st.dictionaries(
        st.sampled_from(["latency_ns", "p99_ns", "load_ns", "peak_memory_bytes", "throughput_qps"]) | names,
        numbers,
        max_size=3,
    )
    judgement = st.fixed_dictionaries(
        {"verdict": st.sampled_from(_verdicts()), "reason": texts},
        optional={"ratio": st.none() | interval, "base": columns, "head": columns},
    )
    count = st.integers(0, 2**62 - 1)
    launch = st.fixed_dictionaries(
        {
            "samples_ns": st.lists(st.integers(1, 2**62 - 1), min_size=1, max_size=4),
            "wall_ns": st.integers(1, 2**62 - 1),
            "load_ns": count,
            "first_inference_ns": count,
        },
        optional={"invalid": texts, "peak_memory_bytes": count},
    )
    engine = st.fixed_dictionaries(
        {"digest": st.just("ab" * 32), "engine_bytes": count},
        optional={"layers": count, "precision_share": st.dictionaries(names, st.floats(0, 1), max_size=2)},
    )
    outcome = st.one_of(
        st.just({"type": "unchanged"}),
        st.fixed_dictionaries({"type": st.just("not-run"), "reason": texts}),
        st.fixed_dictionaries(
            {"type": st.just("failed"), "stage": st.sampled_from(["build", "missing"]), "reason": texts},
            optional={"stderr_tail": texts},
        ),
        st.fixed_dictionaries(
            {
                "type": st.just("measured"),
                "engine": st.none() | engine,
                "launches": st.lists(launch, min_size=1, max_size=3),
            }
        ),
    )
    relative = st.floats(1e-6, 9.9)
    case = st.fixed_dictionaries(
        {
            "id": names,
            "model": names,
            "backend": names,
            "precision": st.just("fp16"),
            "tolerance": st.fixed_dictionaries({"ignore": relative, "catch": relative}),
        }
    )
    cases = st.fixed_dictionaries({"case": case, "outcome": outcome, "judgement": st.none() | judgement})
    summary = st.fixed_dictionaries(
        {"verdict": st.sampled_from(_verdicts()), "exit_code": st.integers(0, 3), "sentence": texts},
        optional={
            "counts": st.dictionaries(names, count, max_size=3),
            "next_steps": st.lists(texts, max_size=3),
        },
    )
    environment = st.fixed_dictionaries(
        {"device": names, "toolchain": names, "key": st.dictionaries(names, texts, max_size=2)}
    )
    run = st.fixed_dictionaries(
        {
            "schema": st.just(RESULTS_SCHEMA),
            "run_id": names,
            "created": names,
            "perfgate": names,
            "environment": environment,
            "protocol": st.just({}),
            "cases": st.lists(cases, max_size=4),
            "summary": st.none() | summary,
        }
    )
    return run.map(lambda value: build(msgspec.json.encode(value)))


def _verdicts() -> list[str]:
    return [verdict.value for verdict in Verdict]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_results())
def test_no_valid_result_breaks_a_renderer(result: RunResult) -> None:
    for format_ in FORMATS:
        text = render(result, format_)
        assert text.endswith("\n") or format_ == "html"
        text.encode()
