"""The business page: self-contained, escaped, on one sheet, in both languages; Markdown, CSV, terminal."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from browser import axe_source, browser, page_of
from business_runs import EAGER, ENGINE, STAGED, case_terms, example, measured_run

from perfgate.report import charts
from perfgate.report.i18n import LANGUAGES, use_language
from perfgate.report.templating import page_environment
from perfgate.report.value import (
    csv as value_csv,
    html as value_html,
    markdown as value_markdown,
    terminal as value_terminal,
)
from perfgate.report.value.view import CaseView, case_view
from perfgate.value.business import BusinessCase
from perfgate.value.compose import given_case, measured_case

RUNS = [
    measured_run("torch", EAGER),
    msgspec.structs.replace(
        measured_run("tensorrt", ENGINE, precision="fp16", build_s=45, number=2, stages=STAGED),
        probe_ns=1_500_000_000,
    ),
]
TERMS = case_terms(
    load={"peak_per_s": 50_000, "per_month": 1e10},
    limit={"p99_ms": 25},
    fleet={"spare": 1},
    effort={"engineer_days": 10, "day_rate": 800},
    deploy={"before_days": 3, "stages_s": {"calibration": 60}},
)
GIVEN = given_case(example(), "2026-11-24")
MEASURED = measured_case(RUNS, TERMS, "2026-11-24")
IMPOSSIBLE = measured_case(RUNS, case_terms(load={"peak_per_s": 9}, limit={"p99_ms": 3}), "2026-11-24")
NOTHING_SAVED = measured_case(RUNS, case_terms(load={"peak_per_s": 9}, limit={"p99_ms": 25}), "2026-11-24")
BARE = measured_case(RUNS, case_terms(device="unknown"), "2026-11-24")
CASES = {
    "given": GIVEN,
    "measured": MEASURED,
    "impossible": IMPOSSIBLE,
    "zero": NOTHING_SAVED,
    "bare": BARE,
}


def view(case: BusinessCase, language: str = "en") -> CaseView:
    with use_language(language):
        return case_view(case)


def cells(case: BusinessCase) -> dict[str, tuple[str, str, str, str]]:
    return {row.name: (row.original, row.tensorrt, row.change, row.verdict) for row in view(case).rows}


def test_directions_are_words() -> None:
    found = cells(GIVEN)
    assert found["Average latency"] == ("80.00 ms", "32.00 ms", "60 % shorter", "✓ better")
    assert found["Throughput, queries a second"][2] == "300 % more"
    assert found["GPU memory"][2:] == ("38.7 % less", "✓ better")
    assert found["Cost of an instance a month"] == ("USD 1,200", "USD 450", "62.5 % less", "✓ better")
    assert found["Time to deploy"] == ("24 h, given", "4 h, given", "83.3 % shorter", "✓ better")
    assert found["Instances for the peak"][:2] == ("42", "11")


def test_simulated_and_given_are_said() -> None:
    found = cells(MEASURED)
    assert "simulated [" in found["Requests a second within the limit, one GPU"][1]
    assert "offline bound" in found["Requests a second within the limit, one GPU"][0]
    assert "8 in an instance" in found["Instances for the peak"][1]
    assert "given, not measured" in view(GIVEN).original
    assert "measured none of them" in " ".join(view(GIVEN).assumptions)
    told = " ".join(view(MEASURED).assumptions)
    for fact in (
        "padded to the next",
        "20 seeds",
        "the same arrivals",
        "AWS p5en.48xlarge",
        "2026-09-24",
        "30 %",
    ):
        assert fact in told


def test_what_cannot_be_met_has_no_count_and_no_percentage() -> None:
    found = cells(IMPOSSIBLE)
    capacity = found["Requests a second within the limit, one GPU"]
    assert capacity[0] == "cannot meet 3.000 ms on this GPU" and capacity[2:] == ("", "")
    assert found["Instances for the peak"] == ("—", "1 (1 GPUs needed, 8 in an instance)", "", "")
    assert "cannot do on this GPU at any load" in view(IMPOSSIBLE).paragraph
    assert "Saving a month" not in found


def test_zero_saving_is_said_with_the_room_that_is_won() -> None:
    shown = view(NOTHING_SAVED)
    assert "nothing is saved today" in shown.paragraph and "of the peak free" in shown.paragraph
    assert any("the saving is zero" in warning for warning in shown.warnings)
    assert cells(NOTHING_SAVED)["Saving a month"][1] == "USD 0"


def test_another_precision_and_an_old_price_are_warned_of() -> None:
    old = msgspec.structs.replace(MEASURED.terms, price_age_days=181)
    shown = view(msgspec.structs.replace(MEASURED, terms=old))
    assert any("FP32" in warning and "FP16" in warning for warning in shown.warnings)
    assert any("181 days old" in warning for warning in shown.warnings)
    assert not any("days old" in warning for warning in view(MEASURED).warnings)


def test_nothing_given_says_what_to_give() -> None:
    told = " ".join(view(BARE).assumptions)
    assert "--peak" in told and "--p99-ms" in told and "--prices" in told


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", list(CASES))
def test_the_page_is_self_contained(name: str, language: str) -> None:
    page = value_html.render_case(CASES[name], language)
    assert page == value_html.render_case(CASES[name], language)
    assert f'<html lang="{language}">' in page
    style = page.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src &#39;sha256-{digest}&#39;" in page
    assert "<script" not in page and " style=" not in page
    assert not re.search(r"(?:src|href)=|url\(|@import|https?:", page)


def test_the_page_in_chinese_has_no_english_sentence() -> None:
    page = value_html.render_case(MEASURED, "zh-CN")
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S)
    for word in ("Average", "shorter", "better", "requests", "Capacity", "given", "Saving", "build"):
        assert word not in text
    assert "平均延迟" in text and "模拟" in text and "更好" in text


HOSTILE = "<script>alert(1)</script>'\"|`@team #1 =1+1 \x1b[31m\u202e{{7*7}}"


def hostile() -> BusinessCase:
    """A case with an attack in every text that a person or a file gives."""
    sides = {
        side: msgspec.structs.replace(getattr(MEASURED, side), label=HOSTILE, precision=HOSTILE, mode=HOSTILE)
        for side in ("original", "tensorrt")
    }
    assert MEASURED.terms.instance is not None
    instance = msgspec.structs.replace(
        MEASURED.terms.instance, name=HOSTILE, region=HOSTILE, source=HOSTILE, gpu=HOSTILE
    )
    return msgspec.structs.replace(
        MEASURED,
        title=HOSTILE,
        device=HOSTILE,
        made=HOSTILE,
        terms=msgspec.structs.replace(MEASURED.terms, instance=instance),
        stages=tuple(msgspec.structs.replace(one, name=HOSTILE) for one in MEASURED.stages),
        promises=tuple(
            msgspec.structs.replace(one, stack=HOSTILE, model=HOSTILE, precision=HOSTILE)
            for one in MEASURED.promises
        ),
        **sides,
    )


def test_hostile_text_stays_text() -> None:
    case = hostile()
    page = value_html.render_case(case)
    assert "<script" not in page and "&lt;script&gt;" in page and "{{7*7}}" in page
    markdown = value_markdown.render_case(case)
    assert "<script" not in markdown and "@team" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("| Average")]
    assert rows and rows[0].count("|") == 6
    for text in (page, markdown, value_terminal.render_case(case), value_csv.render_case(case)):
        assert "\x1b" not in text and "\u202e" not in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_stages_are_said_in_every_form(language: str) -> None:
    said = {"en": ("conversion", "4 s", "not known", "1 min, given"), "zh-CN": ("转换", "4 秒", "未知")}
    for render in (value_html.render_case, value_markdown.render_case, value_terminal.render_case):
        text = render(MEASURED, language)
        assert not [word for word in said[language] if word not in text], render
    rows = {row[0]: row for row in csv.reader(io.StringIO(value_csv.render_case(MEASURED)))}
    assert rows["stage_s conversion"] == ["stage_s conversion", "", "4", "", "", "", "timed"]
    assert rows["stage_s reference"] == ["stage_s reference", "", "", "", "", "", "unknown"]


def test_csv_has_numbers_and_no_formula() -> None:
    case = msgspec.structs.replace(
        MEASURED, original=msgspec.structs.replace(MEASURED.original, label="=cmd()")
    )
    rows = list(csv.reader(io.StringIO(value_csv.render_case(case))))
    assert len({len(row) for row in rows}) == 1
    by_metric = {row[0]: row for row in rows}
    assert by_metric["stack"][1] == "'=cmd()"
    assert float(by_metric["latency_ms"][2]) == pytest.approx(MEASURED.tensorrt.latency_ms)
    assert by_metric["deploy_hours"][4] == "better"


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("width", [80, 160])
def test_the_terminal_keeps_every_number(name: str, width: int) -> None:
    text = value_terminal.render_case(CASES[name], width=width)
    assert "Average latency" in text and "What this takes for granted" in text
    assert all(len(line) <= width for line in text.splitlines())


def test_markdown_begins_with_the_paragraph() -> None:
    text = value_markdown.render_case(GIVEN)
    assert text.startswith("## What does TensorRT buy for image classification?\n\nOn Tesla T4,")
    assert "| Average latency | 80.00 ms | 32.00 ms | 60 % shorter | ✓ better |" in text


@pytest.mark.skipif(not charts.available(), reason="needs vl-convert-python")
def test_charts_have_a_name_a_description_and_their_numbers() -> None:
    page = value_html.render_case(MEASURED)
    assert page.count('role="img"') == page.count("<svg") == 2
    for number in (1, 2):
        assert f'aria-labelledby="v-t{number} v-d{number}"' in page
        assert f'<title id="v-t{number}">' in page and f'<desc id="v-d{number}">' in page
    assert page.count("<details>") == 2 and "var(--head-dot)" in page


def test_another_page_can_take_the_case_in() -> None:
    """The partial that a results report includes: the macro, with `value.css` in the page's own style."""
    environment = page_environment()
    source = (
        "{% from 'value_parts.html.j2' import business with context %}"
        "<style>{% include 'value.css' %}</style>{{ business(view, drawings) }}"
    )
    with use_language("en"):
        page = environment.from_string(source).render(**value_html.fragment_values(MEASURED))
    assert 'class="v-case"' in page and "Average latency" in page
    selectors = re.findall(r"^\s*([.a-z][^{@]*)\{", page.split("<style>")[1].split("</style>")[0], re.M)
    assert selectors and all(one.strip().startswith(".v-") for one in selectors), "it styles itself alone"


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Every case's page in each language."""
    folder = tmp_path_factory.mktemp("value")
    found = {}
    for language in LANGUAGES:
        for name, case in {**CASES, "hostile": hostile()}.items():
            found[name, language] = folder / f"{name}-{language}.html"
            found[name, language].write_text(value_html.render_case(case, language), encoding="utf-8")
    return found


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", ["given", "measured"])
def test_a_browser_asks_for_nothing_and_prints_one_sheet(
    chrome: Any, files: dict[tuple[str, str], Path], name: str, language: str
) -> None:
    with page_of(chrome, files[name, language]) as page:
        sheet = page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", sheet)) == 1


@pytest.mark.parametrize("name", ["measured", "hostile"])
def test_a_phone_shows_it_without_scrolling_sideways(
    chrome: Any, files: dict[tuple[str, str], Path], name: str
) -> None:
    with page_of(chrome, files[name, "en"], viewport={"width": 360, "height": 800}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(
    chrome: Any, files: dict[tuple[str, str], Path], language: str, scheme: str
) -> None:
    source = axe_source()
    with page_of(chrome, files["measured", language], color_scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        page.evaluate(source)  # by the debugger, which the page's policy does not bind
        found = page.evaluate(
            "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
        )
        assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
        assert len(found["passes"]) > 15


TF32 = measured_case(
    [
        measured_run("torch", EAGER, tf32="convolutions only"),
        measured_run("tensorrt", ENGINE, tf32="on", number=2),
    ],
    case_terms(),
    "2026-11-24",
)


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_stacks_that_differ_in_tf32_say_so_beside_the_ratio_in_every_form() -> None:
    warning = "The original ran with TF32 in convolutions only, TensorRT with TF32 on"
    assert any(one.startswith(warning) for one in view(TF32).warnings)
    assert TF32.stacks is not None
    for text in (value_markdown.render(TF32.stacks), value_terminal.render(TF32.stacks, width=300)):
        assert "original, TF32 in convolutions only" in text
        assert re.search(r"× as fast .*, TF32 on", text)
        assert "that is part of the ratio" in text
    assert warning in value_html.render_case(TF32)
    assert ["tf32", "convolutions only", "on"] in [row[:3] for row in rows_of(value_csv.render_case(TF32))]


def test_results_that_do_not_know_of_tf32_say_nothing_of_it() -> None:
    assert MEASURED.stacks is not None
    texts = (
        value_html.render_case(MEASURED),
        value_csv.render_case(MEASURED),
        value_markdown.render(MEASURED.stacks),
    )
    assert not any("tf32" in text.lower() for text in texts)
