"""The HTML report in a real Chromium: what a reader sees, and what a script and a keyboard do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import AXE_VERSION, axe_source, browser, page_of, same_picture
from conftest import every_verdict, make_run
from test_hostile import poison

from perfgate.report import render
from perfgate.report.i18n import LANGUAGES

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report in each language, and one of hostile text."""
    folder = tmp_path_factory.mktemp("report")
    run = make_run(every_verdict())
    texts = {language: render(run, "html", language) for language in LANGUAGES}
    texts["hostile"] = render(poison(run), "html", "zh-CN")
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


def cases(page: Any) -> list[str]:
    """The names in the table that can be seen, from the top."""
    found: list[str] = page.eval_on_selector_all(
        "table.cases tbody tr", "rows => rows.filter(r => !r.hidden).map(r => r.cells[1].textContent)"
    )
    return [name.partition("/")[0] for name in found]


def test_it_renders_without_a_complaint_and_asks_nobody(chrome: Any, files: dict[str, Path]) -> None:
    for language in LANGUAGES:
        with page_of(chrome, files[language]) as page:
            assert page.evaluate("document.documentElement.lang") == language
            assert page.locator("details.case[open]").count() == 10
            assert page.locator("svg.rich").count() >= 5
            assert page.evaluate("document.documentElement.scrollWidth") == 1280


def test_hostile_text_runs_nothing_and_asks_nobody(chrome: Any, files: dict[str, Path]) -> None:
    with page_of(chrome, files["hostile"]) as page:
        assert "<script>alert(1)</script>" in page.inner_text("body")
        assert page.locator("script").count() == 1 and page.locator("img, a[href^='http']").count() == 0
        page.get_by_role("searchbox").fill("<script>")
        assert len(cases(page)) == 12


def test_the_table_sorts_both_ways_and_says_so(chrome: Any, files: dict[str, Path]) -> None:
    with page_of(chrome, files["en"]) as page:
        worst_first = cases(page)
        assert worst_first[:3] == ["resnet50", "unet", "detr"]
        head = page.get_by_role("columnheader", name="Head median")
        head.get_by_role("button").click()
        up = cases(page)
        assert up[:3] == ["vit", "swin", "ssd"] and head.get_attribute("aria-sort") == "ascending"
        head.get_by_role("button").click()
        down = cases(page)
        assert down[:3] == ["unet", "yolo", "resnet50"] and head.get_attribute("aria-sort") == "descending"
        # What has no number stays last, whichever way.
        assert set(up[-4:]) == set(down[-4:]) == {"detr", "gpt2", "lstm", "bert"}
        page.get_by_role("columnheader", name="Case").get_by_role("button").click()
        assert cases(page) == sorted(worst_first)
        page.get_by_role("columnheader", name="Verdict").get_by_role("button").click()
        assert cases(page) == worst_first


def test_the_filter_hides_rows_and_sections_and_tells_a_screen_reader(
    chrome: Any, files: dict[str, Path]
) -> None:
    with page_of(chrome, files["en"]) as page:
        page.get_by_label("Find a case").fill("NET")
        assert cases(page) == ["resnet50", "unet"]
        assert page.get_by_role("status").inner_text() == "2 of 12 cases shown"
        assert page.locator("details.case:visible").count() == 2
        page.get_by_label("Find a case").fill("")
        page.get_by_role("combobox").select_option(label="PASS")
        assert cases(page) == ["vgg"]
        page.get_by_role("combobox").select_option(label="all")
        assert len(cases(page)) == 12


def test_sections_fold_by_keyboard(chrome: Any, files: dict[str, Path]) -> None:
    with page_of(chrome, files["en"]) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        assert page.locator(".skip").bounding_box()["x"] >= 0, "the focused link can be seen"
        summary = page.locator("details.case summary").first
        summary.focus()
        page.keyboard.press("Enter")
        assert page.locator("details.case").first.get_attribute("open") is None
        page.keyboard.press("Space")
        assert page.locator("details.case").first.get_attribute("open") is not None
        page.get_by_role("button", name="Open all").press("Enter")
        assert page.locator("details.case[open]").count() == 12
        page.get_by_role("button", name="Close all").press("Enter")
        assert page.locator("details.case[open]").count() == 0


def test_every_control_is_reached_by_tab_and_shows_its_focus(chrome: Any, files: dict[str, Path]) -> None:
    with page_of(chrome, files["en"]) as page:
        reached = set()
        for _ in range(30):
            page.keyboard.press("Tab")
            kind, outline = page.evaluate(
                "[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]"
            )
            reached.add(kind)
            assert outline != "none", kind
        assert {"A", "INPUT", "SELECT", "BUTTON", "DIV"} <= reached


def test_without_javascript_everything_is_there_and_a_link_opens_its_section(
    chrome: Any, files: dict[str, Path]
) -> None:
    with page_of(chrome, files["en"], java_script_enabled=False) as page:
        assert page.locator("table.cases tbody tr").count() == 12
        assert not page.locator(".tools").is_visible() and page.locator("th button").count() == 0
        folded = page.locator("details.case", has_text="vgg/fp16/b8")
        assert folded.get_attribute("open") is None
        page.locator("table.cases a", has_text="vgg/fp16/b8").click()
        assert folded.get_attribute("open") is not None


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(chrome: Any, files: dict[str, Path], language: str, scheme: str) -> None:
    source = axe_source()
    with page_of(chrome, files[language], color_scheme=scheme) as page:
        page.get_by_role("button").last.scroll_into_view_if_needed()
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        page.evaluate(source)  # by the debugger, which the page's policy does not bind
        found = page.evaluate(
            "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],"
            " resultTypes: ['violations']})"
        )
        assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
        assert len(found["passes"]) > 20


def test_axe_finds_what_is_wrong(chrome: Any, files: dict[str, Path]) -> None:
    source = axe_source()
    with page_of(chrome, files["en"]) as page:
        page.evaluate("document.documentElement.removeAttribute('lang')")
        page.evaluate("document.querySelector('.sentence').attributeStyleMap.set('color', '#aaa')")
        page.evaluate(source)
        found = {one["id"] for one in page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]}
        assert found == {"html-has-lang", "color-contrast"}


def test_make_fetches_the_version_that_is_tested_with() -> None:
    makefile = Path(__file__).resolve().parents[2] / "Makefile"
    assert f"AXE := {AXE_VERSION}\n" in makefile.read_text()


def test_a_phone_shows_it_without_scrolling_sideways(chrome: Any, files: dict[str, Path]) -> None:
    for language in LANGUAGES:
        with page_of(chrome, files[language], viewport={"width": 360, "height": 800}) as page:
            assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize(
    ("name", "language", "options"),
    [
        ("light", "en", {}),
        ("dark", "en", {"color_scheme": "dark"}),
        ("dark-zh", "zh-CN", {"color_scheme": "dark"}),
        ("phone", "en", {"viewport": {"width": 390, "height": 844}}),
    ],
)
def test_the_first_screen_looks_as_it_did(
    chrome: Any, files: dict[str, Path], name: str, language: str, options: dict[str, Any]
) -> None:
    with page_of(chrome, files[language], **options) as page:
        same_picture(page.screenshot(), f"{name}.png")


def test_it_prints_on_a4_with_repeated_heads_and_page_numbers(
    chrome: Any, files: dict[str, Path], tmp_path: Path
) -> None:
    for language, last in (("en", "Reason"), ("zh-CN", "原因")):
        with page_of(chrome, files[language]) as page:
            page.pdf(path=str(tmp_path / "report.pdf"), prefer_css_page_size=True, print_background=True)
        information = poppler("pdfinfo", str(tmp_path / "report.pdf"))
        assert "A4" in information
        pages = poppler("pdftotext", "-layout", str(tmp_path / "report.pdf"), "-").split("\f")[:-1]
        for number, text in enumerate(pages, 1):
            assert f"{number} / {len(pages)}" in text, "every page has its number"
        # The table of cases goes over two pages, each with all its heads.
        assert [all(head in text for head in ("p99", last)) for text in pages[:2]] == [True, True]


def poppler(program: str, *arguments: str) -> str:
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=True)
    except FileNotFoundError:
        pytest.skip("needs poppler-utils: apt-get install poppler-utils")
    return done.stdout


def test_the_first_printed_page_looks_as_it_did(chrome: Any, files: dict[str, Path], tmp_path: Path) -> None:
    with page_of(chrome, files["en"]) as page:
        page.pdf(path=str(tmp_path / "report.pdf"), prefer_css_page_size=True, print_background=True)
    poppler(
        "pdftoppm", "-r", "60", "-png", "-singlefile", str(tmp_path / "report.pdf"), str(tmp_path / "page")
    )
    same_picture((tmp_path / "page.png").read_bytes(), "print.png")
