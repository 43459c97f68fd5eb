import base64
import hashlib
import json
import math
import re
import time
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings, strategies as st

from perfgate.records import Interval
from perfgate.records.trend import EnvironmentChange, LevelChange, Point, Trend
from perfgate.report.trend.chart import COLUMNS, chart
from perfgate.report.trend.site import render_site
from perfgate.report.trend.view import blame, sparkline, terminal, tone

EVIL = "<script>alert(1)</script>\"'&amp;{{ 7*7 }}=cmd \x1b[31m\x07 ../../\u202e"
VOID = {"meta", "br", "link", "img", "hr"}


class Page(HTMLParser):
    """Collects what a browser would, and fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.style = self.text = ""
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
        else:
            self.text += data

    def values(self, attribute: str) -> list[str]:
        return [value for _, attrs in self.tags if (value := attrs.get(attribute)) is not None]


def trend(case: str = "resnet50/fp16/b8", device: str = "nvidia-h200", count: int = 60) -> Trend:
    start = datetime(2026, 1, 1, 2, tzinfo=timezone.utc)
    nights = []
    for night in range(count):
        value = 5e5 * (1.03 if night >= count // 2 else 1) * (1 + 0.001 * math.sin(night))
        nights.append(
            Point(
                run_id=f"r{night}",
                created=f"{start + timedelta(days=night):%Y-%m-%dT%H:%M:%SZ}",
                commit=hashlib.sha1(str(night).encode()).hexdigest(),
                verdict="PASS",
                environment="e",
                device=device,
                toolchain="tensorrt-10",
                value=value,
                values=tuple(value * (1 + 0.002 * launch) for launch in range(-2, 3)),
                promoted=night == 3,
            )
        )
    middle = count // 2
    commits = (nights[middle - 1].commit, nights[middle].commit) if count > 1 else ("", "")
    changes = (changed(middle, 1.03, 0.002, commits),)
    what = "driver 580 to 590"
    return Trend(
        case=case,
        device=device,
        metric="latency_ns",
        points=tuple(nights),
        changes=changes if count > 1 else (),
        events=(EnvironmentChange(index=min(10, count - 1), before="a", after="b", what=what),),
    )


def changed(index: int, ratio: float, half: float, commits: tuple[str, str]) -> LevelChange:
    interval = Interval(estimate=ratio, low=ratio - half, high=ratio + half, confidence=0.95)
    return LevelChange(index=index, ratio=interval, cause="commit", commits=commits)


def evil() -> Trend:
    point = Point(
        run_id=EVIL,
        created=EVIL,
        commit=EVIL,
        environment=EVIL,
        device=EVIL,
        toolchain=EVIL,
        verdict=EVIL,
        value=5e5,
        values=(5e5, 6e5),
        promoted=True,
    )
    return Trend(
        case=EVIL,
        device=EVIL,
        metric=EVIL,
        points=(point, point),
        changes=(changed(1, 1.03, 0.01, (EVIL, EVIL + "2")),),
        events=(EnvironmentChange(index=1, before=EVIL, after=EVIL, what=EVIL),),
    )


def built(trends: Sequence[Trend], title: str = "Speed") -> dict[str, str]:
    files = list(render_site(trends, title=title))
    assert len({name.lower() for name, _ in files}) == len(files)
    return dict(files)


@pytest.fixture(scope="module")
def site() -> dict[str, str]:
    return built([trend(), trend("bert/int8/b1", "nvidia-l4"), trend("bert/int8/b1")])


def test_there_is_a_page_for_all_for_each_filter_and_each_case(site: dict[str, str]) -> None:
    pages = {name for name in site if name.endswith(".html")}
    assert len(pages) == 1 + 2 + 2 + 3 and len(site) == len(pages) + 3
    index = Page(site["index.html"])
    assert "All cases" in index.text and index.text.count("3.0 % slower") == 3
    for kind, count in (("model-bert", 2), ("model-resnet50", 1), ("device-nvidia-l4", 1)):
        (name,) = [one for one in pages if one.startswith(kind)]
        assert Page(site[name]).text.count("3.0 % slower") == count
        assert f'href="{name}"' in site["index.html"]


def test_every_link_stays_in_the_site_and_finds_its_file(site: dict[str, str]) -> None:
    for name, text in site.items():
        if name.endswith(".html"):
            page = Page(text)
            assert set(page.values("href")) <= set(site)
            assert not page.values("src") and not page.values("style")
            assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "form", "base"}
            assert not [key for _, attrs in page.tags for key in attrs if key.startswith("on")]
            assert not re.search(r"https?://|@import|url\(", text)


def test_the_policy_allows_this_style_sheet_and_nothing_else(site: dict[str, str]) -> None:
    for name, text in site.items():
        if name.endswith(".html"):
            page = Page(text)
            (policy,) = [attrs["content"] for _, attrs in page.tags if "http-equiv" in attrs]
            digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
            assert policy == (
                f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
            )


def test_a_chart_says_what_it_shows(site: dict[str, str]) -> None:
    (name,) = [one for one in site if one.startswith("resnet50") and one.endswith(".html")]
    page = Page(site[name])
    (drawing,) = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert drawing["role"] == "img" and drawing["aria-labelledby"] == "t d"
    assert {"t", "d"} <= set(page.values("id")) and len(page.values("id")) == len(set(page.values("id")))
    assert "60 runs from 2026-01-01 to 2026-03-01" in page.text
    assert "driver 580 to 590" in page.text and 'class="promoted"' in site[name]
    assert re.search(r"after [0-9a-f]{12}, up to [0-9a-f]{12}", page.text)


def test_the_data_file_holds_every_launch(site: dict[str, str]) -> None:
    (name,) = [one for one in site if one.startswith("resnet50") and one.endswith(".json")]
    data = json.loads(site[name])
    assert data["schema"] == "perfgate-trt/trend/v1" and len(data["nights"]) == 60
    assert len(data["nights"][0]["values"]) == 5 and data["nights"][3]["promoted"] is True


def test_hostile_text_stays_text() -> None:
    files = built([evil(), trend()], title=EVIL)
    for name, text in files.items():
        assert re.fullmatch(r"[a-z0-9-]+\.(html|json)", name)
        if name.endswith(".html"):
            Page(text)
            assert (
                "<script" not in text
                and "\x1b" not in text
                and "\u202e" not in text
                and "49" not in title(text)
            )
        else:
            json.loads(text)
    assert "&lt;script&gt;" in files["index.html"]
    shown = terminal([evil()])
    assert "\x1b" not in shown and "\u202e" not in shown and "\x07" not in shown


def title(text: str) -> str:
    return text.partition("<title>")[2].partition("</title>")[0]


def test_the_same_trends_make_the_same_bytes_in_any_order() -> None:
    trends = [trend(), trend("bert/int8/b1"), evil()]
    assert built(trends) == built(trends[::-1])


def test_names_that_read_alike_have_files_of_their_own() -> None:
    built([trend("a/b"), trend("a-b"), trend("A/B"), trend("a/b", "other"), trend("é"), trend("è")])


def test_an_empty_history_is_a_page() -> None:
    files = built([])
    assert list(files) == ["index.html"] and "No run is stored" in Page(files["index.html"]).text
    assert terminal([]) == "No night is stored for this selection."


@pytest.mark.parametrize("count", [1, 2, 5, 121, 3000])
def test_series_of_any_length_can_be_drawn(count: int) -> None:
    drawing = chart(trend(count=count))
    assert drawing.line.count("L") + 1 == min(count, COLUMNS)
    assert "nan" not in drawing.line + drawing.band and 2 <= len(drawing.rows) <= 12


def test_two_hundred_cases_of_a_year_are_built_in_seconds_and_pages_stay_small() -> None:
    trends = [trend(f"model{number % 20}/fp16/b{number}", count=365) for number in range(200)]
    started = time.process_time()  # not of a machine that others keep busy
    files = built(trends)
    assert time.process_time() - started < 20
    assert max(len(text.encode()) for name, text in files.items() if name.endswith(".html")) < 500_000


def test_words_for_what_moved() -> None:
    change = changed(1, 1.05, 0.01, ("a" * 40, "b" * 40))
    assert (tone(change, "latency_ns"), tone(change, "throughput_qps")) == ("red", "green")
    same = changed(1, 1.05, 0.01, ("a" * 40, "a" * 40))
    assert blame(same) == "aaaaaaaaaaaa on both sides: not a commit, look at the machine"
    text = terminal([trend()])
    assert "3.0 % slower (95 % interval +2.8 % to +3.2 %)" in text
    assert "2026-01-11  environment: driver 580 to 590" in text
    assert terminal([trend()], ascii_only=True).isascii()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1e-3, 1e15), max_size=100), st.integers(1, 60))
def test_a_sparkline_is_never_wider_than_asked(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) == min(len(values), width)
    assert sparkline(values, width, ascii_only=True).isascii()
