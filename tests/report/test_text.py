"""Markdown, JSON and the terminal against files that were read by a person once.

After a change that is meant: `PERFGATE_GOLDEN=write pytest tests/report/test_text.py`, then read the diff.
"""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from perfgate.errors import UsageError
from perfgate.records import RunResult, Summary, Verdict
from perfgate.report import FORMATS, render
from perfgate.report.run.terminal import print_result

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(
    ("format_", "name", "language"),
    [
        ("markdown", "run.md", "en"),
        ("markdown", "run.zh-CN.md", "zh-CN"),
        ("json", "run.json", "zh-CN"),
        ("terminal", "run.txt", "en"),
        ("terminal", "run.zh-CN.txt", "zh-CN"),
    ],
)
def test_the_report_is_as_stored(run: RunResult, format_: str, name: str, language: str) -> None:
    text = render(run, format_, language)
    if os.environ.get("PERFGATE_GOLDEN") == "write":
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8")


def test_json_is_the_result_itself(run: RunResult) -> None:
    assert msgspec.json.decode(render(run, "json"), type=RunResult) == run


def test_every_verdict_is_said_in_every_report_for_people(run: RunResult) -> None:
    for format_ in ("terminal", "markdown", "html"):
        text = render(run, format_)
        for verdict in Verdict:
            assert verdict.value.lower() in text.lower(), (format_, verdict)


def test_an_unjudged_run_renders_everywhere(unjudged: RunResult) -> None:
    for format_ in FORMATS:
        assert render(unjudged, format_)
    assert "○ NOT JUDGED" in render(unjudged, "terminal")
    assert render(unjudged, "markdown").startswith("**○ NOT JUDGED** — Measured 1 of 4 cases;")


def test_memory_that_is_not_known_is_not_shown_as_none(unjudged: RunResult) -> None:
    blind = re.sub(rb'"peak_memory_bytes":\d+', b'"peak_memory_bytes":0', msgspec.json.encode(unjudged))
    assert "peak memory" in render(unjudged, "html")
    assert "peak memory" not in render(msgspec.json.decode(blind, type=RunResult), "html")


def test_an_unknown_format_is_refused_with_advice(run: RunResult) -> None:
    with pytest.raises(UsageError, match="choose one of terminal"):
        render(run, "pdf")


def test_importing_the_package_imports_no_renderer() -> None:
    code = "import sys, perfgate.report; print(sorted({'rich', 'jinja2', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_markdown_drops_whole_rows_and_counts_them(many: RunResult) -> None:
    text = render(many, "markdown")
    assert len(text) <= 60_000
    rows = [line for line in text.splitlines() if line.startswith("| ") and "<code>" in line]
    assert all(line.endswith(" |") and line.count(" | ") == 7 for line in rows)
    assert f"{500 - len(rows)} more rows were left out" in text


def test_markdown_with_too_many_red_rows_keeps_the_worst(many: RunResult) -> None:
    cases = [
        msgspec.structs.replace(
            case,
            judgement=msgspec.structs.replace(case.judgement, verdict=Verdict.REGRESSION, reason="@" * 400),
        )
        for case in many.cases
        if case.judgement
    ]
    text = render(msgspec.structs.replace(many, cases=tuple(cases)), "markdown")
    assert len(text) <= 60_000 and "more of these rows were left out" in text
    assert text.index("model-499/") < text.index("model-498/")


def test_markdown_of_the_longest_texts_stays_within_its_limit(run: RunResult) -> None:
    steps = ("`" + "|" * 5_000 + "`",) * 30
    summary = Summary(verdict=Verdict.ERROR, exit_code=1, sentence="@" * 20_000, next_steps=steps)
    assert len(render(msgspec.structs.replace(run, summary=summary), "markdown")) <= 60_000


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_the_terminal_keeps_to_its_width(run: RunResult, width: int) -> None:
    sink = io.StringIO()
    print_result(run, Console(file=sink, width=width, color_system=None))
    table = sink.getvalue().split("NOT RUN")[0]
    assert all(len(line) <= width for line in table.splitlines() if ": " not in line)
    assert "confirmed in 6 blocks" in " ".join(sink.getvalue().split())


def test_the_terminal_has_colour_only_where_it_is_wanted(run: RunResult) -> None:
    sink = io.StringIO()
    print_result(run, Console(file=sink, width=100, force_terminal=True, color_system="standard"))
    assert "\x1b[1;31m" in sink.getvalue()
    assert "\x1b" not in render(run, "terminal")


def test_an_ascii_terminal_gets_ascii(run: RunResult) -> None:
    raw = io.BytesIO()
    sink = io.TextIOWrapper(raw, encoding="ascii")
    print_result(run, Console(file=sink, width=130, color_system=None))
    sink.flush()
    text = raw.getvalue().decode("ascii")
    assert "x REGRESSION" in text and "41.20 us" in text


def test_a_terminal_that_cannot_write_chinese_gets_english(run: RunResult) -> None:
    raw = io.BytesIO()
    sink = io.TextIOWrapper(raw, encoding="latin-1")
    print_result(run, Console(file=sink, width=130, color_system=None), "zh-CN")
    sink.flush()
    assert "x REGRESSION" in raw.getvalue().decode("latin-1")


def test_a_long_run_folds_its_quiet_cases(many: RunResult) -> None:
    text = render(many, "terminal")
    assert "… and 350 more cases with nothing to report" in text
