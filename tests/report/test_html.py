import base64
import hashlib
import re
from html.parser import HTMLParser

import msgspec
import pytest
from conftest import every_verdict
from hypothesis import given, settings, strategies as st
from test_site import trend

from perfgate.records import RunResult
from perfgate.report import charts, render
from perfgate.report.i18n import LANGUAGES
from perfgate.report.run import html

VOID = {"meta", "br", "path", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Collects what a browser would, and fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.style = self.script = ""
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        elif self.open and self.open[-1] == "script":
            self.script += data
        else:
            self.text += data

    def values(self, attribute: str) -> list[str]:
        return [value for _, attrs in self.tags if (value := attrs.get(attribute)) is not None]


@pytest.fixture
def page(run: RunResult) -> Page:
    return Page(render(run, "html"))


def test_the_policy_allows_this_style_sheet_and_this_script_and_nothing_else(page: Page) -> None:
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    style, script = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (page.style, page.script)
    )
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_the_page_asks_for_nothing(page: Page) -> None:
    names = {tag for tag, _ in page.tags}
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 1
    assert not names & {"link", "img", "iframe", "object", "embed", "form", "base"}
    assert not page.values("src") and not page.values("style")
    assert all(re.fullmatch("#(c[0-9]+|cases)", href) for href in page.values("href"))
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert not re.search(r"https?://|@import|url\(", page.style)
    assert not re.search(r"fetch|XMLHttp|import|innerHTML|eval|location|cookie|Storage", page.script)


def test_ids_are_unique_and_every_link_and_label_finds_its_target(page: Page) -> None:
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {href[1:] for href in page.values("href")} <= set(ids)
    assert {word for label in page.values("aria-labelledby") for word in label.split()} <= set(ids)


def test_the_same_result_makes_the_same_bytes(run: RunResult) -> None:
    assert render(run, "html") == render(run, "html")


def test_the_first_screen_says_what_happened(run: RunResult) -> None:
    text = render(run, "html")
    first = Page(text).text.split("Cases\n")[0]
    assert '<html lang="en">' in text and 'name="viewport"' in text
    for words in (
        "REGRESSION",
        "resnet50/fp16/b8: 12.3 % slower",
        "perfgate explain",
        "NVIDIA-H200",
        "8.5.3.1",
    ):
        assert words in first
    assert "IMPROVEMENT" not in first, "a count of zero is left out"


def test_a_case_shows_its_launches_engine_differences_and_error(page: Page) -> None:
    for words in (
        "48.92 MiB",
        "45.20 s",
        "fp16 93 %",
        "cask_conv_f32",
        "Unsupported op: Einsum",
        "invalid: thermal",
    ):
        assert words in page.text
    assert "Baseline: 5 launches, 2.054 ms to 2.075 ms. Head: 5 launches, 2.307 ms to 2.330 ms." in page.text
    assert {attrs.get("role") for tag, attrs in page.tags if tag == "svg"} == {"img"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_case_shows_its_history_where_one_is_given(run: RunResult, language: str) -> None:
    past = {"resnet50/fp16/b8": trend(), "vgg/fp16/b8": trend("vgg/fp16/b8", count=1)}
    text = html.render(run, language, past)
    page = Page(text)
    assert text.count('class="spark"') == 2 and len(page.values("id")) == len(set(page.values("id")))
    said = {
        "en": ("60 runs from 2026-01-01 to 2026-03-01", "3.0 % slower", "new environment: driver 580 to 590"),
        "zh-CN": ("2026-01-01 至 2026-03-01 共 60 次运行", "慢 3.0%", "新环境： driver 580 to 590"),
    }
    for words in said[language]:
        assert words in page.text
    assert 'class="spark"' not in html.render(run, language)


def test_an_unjudged_run_says_so(unjudged: RunResult) -> None:
    text = Page(render(unjudged, "html")).text
    assert "NOT JUDGED" in text and "nothing is judged" in text and "MISSING" in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_five_hundred_cases_stay_below_a_megabyte_and_a_half(many: RunResult, language: str) -> None:
    # How quickly: tests/benchmarks/report_speed.py.
    text = render(many, "html", language)
    assert len(text.encode()) < 1_500_000
    page = Page(text)
    assert len([tag for tag, _ in page.tags if tag == "details"]) == 500
    assert len([tag for tag, attrs in page.tags if attrs.get("class") == "rich"]) == 20


def test_a_section_is_absent_where_the_result_has_nothing_for_it(unjudged: RunResult) -> None:
    plain = msgspec.structs.replace(unjudged, policy_changes=())
    text = Page(render(plain, "html")).text
    for words in ("Why is it slower", "Accuracy", "Also judged", "Confirmation", "alters its own judge"):
        assert words not in text


def test_the_evidence_is_shown(page: Page) -> None:
    for words in (
        "conv1 + relu came apart",
        "2.064 ms → 2.319 ms",
        "Pow between /stem/conv1 and /stem/relu",
        "63/64 (98.4 %)",
        "features has 2 numbers that are not finite",
        "10.9 % less",
        "Log-likelihood ratio9.31",
        "p902.081 ms2.337 ms",
        "base's own as a line",
        "median 1980 MHz, 1905 to 1980 MHz",
        "models/resnet50.toml: catch",
        "perfgate run -k resnet50/fp16/b8 --remeasure",
    ):
        assert words in page.text


def test_a_clean_tree_is_named_in_the_command_that_measures_again(run: RunResult) -> None:
    clean = msgspec.structs.replace(run, commit=msgspec.structs.replace(run.commit, dirty=False))
    assert f"git switch --detach {run.commit.sha}" in Page(render(clean, "html")).text
    assert "git switch" not in Page(render(run, "html")).text


def test_charts_are_left_out_where_vl_convert_is_not_installed(
    run: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charts, "available", lambda: False)
    text = render(run, "html")
    assert 'class="rich"' not in text and "where vl-convert-python is installed" in text
    Page(text)


SAMPLES = st.lists(st.integers(1, 2**62 - 1), max_size=50)


@settings(max_examples=40, deadline=None)
@given(SAMPLES, SAMPLES)
def test_any_samples_can_be_drawn(samples: list[int], base: list[int]) -> None:
    drawing = charts.distribution(every_verdict()[0], samples, base)
    assert (drawing is None) == (len(samples) < 2)
    assert drawing is None or drawing.based == (len(base) > 1)
    if drawing:
        assert "NaN" not in drawing.body and "style=" not in drawing.body and "<script" not in drawing.body


def test_beyond_a_thousand_cases_the_table_goes_on_without_sections(many: RunResult) -> None:
    page = Page(render(msgspec.structs.replace(many, cases=many.cases * 3), "html"))
    assert "500 more cases are in the table above" in page.text
    assert {href[1:] for href in page.values("href")} <= set(page.values("id"))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_keep_a_contrast_of_4_5(page: Page, scheme: int) -> None:
    blocks = [dict(re.findall(r"--([\w-]+): (#\w{6});", part)) for part in page.style.split("@media screen")]
    colour = {**blocks[0], **blocks[scheme]}
    pairs = [(ink, paper) for ink in ("ink", "soft", "blue") for paper in ("page", "card")]
    pairs += [(tone, f"{tone}-bg") for tone in ("red", "amber", "green", "blue", "grey")]
    pairs += [("ink", "code")]
    assert {pair: _contrast(colour[pair[0]], colour[pair[1]]) for pair in pairs} == {
        pair: pytest.approx(12.75, abs=8.25) for pair in pairs
    }


def _contrast(ink: str, paper: str) -> float:
    high, low = sorted((_luminance(ink), _luminance(paper)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
