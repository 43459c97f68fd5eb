"""Every word in every language: a message without a translation, or a word outside the catalogues, fails."""

import ast
import gettext as stdlib
import io
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import every_verdict, make_run
from hypothesis import given, strategies as st
from test_hostile import poison

from perfgate.report import format as fmt, i18n, render
from perfgate.report.i18n import LANGUAGES, use_language
from perfgate.report.phrases import PHRASES, Untranslated, translate
from perfgate.util import wording as words
from perfgate.util.process import package_environment

catalogues = pytest.importorskip("catalogues", reason="needs Babel: pip install babel")
PAIRS = [(domain, path) for domain in i18n.DOMAINS for path in catalogues.catalogues(domain)]
IDS = [f"{domain}-{path.parent.parent.name}" for domain, path in PAIRS]


def test_the_report_has_a_catalogue_for_every_language_but_english() -> None:
    found = {path.parent.parent.name.replace("_", "-") for domain, path in PAIRS if domain == "report"}
    assert found == set(LANGUAGES) - {"en"}


@pytest.mark.parametrize(("domain", "path"), PAIRS, ids=IDS)
def test_every_message_is_translated_and_none_is_left_over(domain: str, path: Path) -> None:
    catalogue = catalogues.read(path)
    wanted = {m[0] if isinstance(m, tuple) else m for m in catalogues.messages(domain)}
    held = {m.id[0] if isinstance(m.id, tuple) else m.id for m in catalogue if m.id}
    assert wanted - held == set(), "python tests/report/catalogues.py, then translate"
    assert held - wanted == set(), "python tests/report/catalogues.py drops these"
    assert [m.id for m in catalogue if m.id and not catalogues.translated(m)] == []


@pytest.mark.parametrize(("domain", "path"), PAIRS, ids=IDS)
def test_a_translation_keeps_its_placeholders(domain: str, path: Path) -> None:
    for message in catalogues.read(path):
        if not message.id:
            continue
        sources = message.id if isinstance(message.id, tuple) else (message.id,)
        names = {name for text in sources for name in re.findall(r"%\((\w+)\)s|%%", text)}
        strings = message.string if isinstance(message.string, (tuple, list)) else (message.string,)
        for text in strings:
            assert set(re.findall(r"%\((\w+)\)s|%%", text)) <= names, message.id
            if not isinstance(message.id, tuple):
                assert sorted(re.findall(r"%\((\w+)\)s", text)) == sorted(
                    re.findall(r"%\((\w+)\)s", message.id)
                )


@pytest.mark.parametrize(("domain", "path"), PAIRS, ids=IDS)
def test_the_compiled_catalogue_is_fresh(domain: str, path: Path) -> None:
    def held(data: bytes) -> dict[object, str]:
        words: dict[object, str] = vars(stdlib.GNUTranslations(io.BytesIO(data)))["_catalog"]
        return {message: text for message, text in words.items() if message}

    fresh = held(catalogues.compiled(catalogues.read(path)))
    assert held(path.with_suffix(".mo").read_bytes()) == fresh, "python tests/report/catalogues.py"


def test_no_message_hides_from_the_extraction() -> None:
    """Babel does not look into f-strings on every Python: what the syntax tree has, it must have found."""
    for domain in i18n.DOMAINS:
        called = set()
        for path in catalogues.sources(domain):
            if path.suffix != ".py":
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
                if name in ("_", "gettext", "N_", "ngettext"):
                    first = node.args[0]  # type: ignore[attr-defined]
                    if isinstance(first, ast.Constant):
                        called.add(first.value)
        found = {m[0] if isinstance(m, tuple) else m for m in catalogues.messages(domain)}
        assert called - found == set()


class Texts(HTMLParser):
    """The pieces of text of a page, but for those that are marked as English, and scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.skip: list[str] = []
        self.pieces: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if (
            self.skip
            or tag in ("script", "style", "code")
            or (tag != "html" and dict(attrs).get("lang") == "en")
        ):
            if tag not in ("meta", "br", "input"):
                self.skip.append(tag)
        else:
            self.pieces += [value or "" for name, value in attrs if name in ("aria-label", "data-words")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if self.skip and self.skip[-1] == tag:
            self.skip.pop()

    def handle_data(self, data: str) -> None:
        if not self.skip:
            self.pieces.append(data)


class Marked(stdlib.NullTranslations):
    """A language in which every word of ours can be told from what a result brought along."""

    def gettext(self, message: str) -> str:
        return f"⟦{message}⟧"

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return f"⟦{msgid2}⟧"


def test_every_word_of_the_page_comes_from_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(i18n, "translations", lambda language: Marked())
    texts = Texts(render(poison(make_run(every_verdict())), "html", "zh-CN"))
    own = [piece.strip() for piece in texts.pieces if re.search(r"[A-Za-z]{2}", piece)]
    loose = [text for text in own if "⟦" not in text and "alert(1)" not in text]
    quantity = r"[\d.,+−→≥ -]+(ns|µs|ms|s|MiB|KiB|B|/s|MHz|W|J|°C|dB)?"
    ours = {"perfgate", "tensorrt", "fp16", "top-1 accuracy"}
    # What is left are quantities, and the data that no text of a result can change.
    kept = [text for text in loose if text not in ours and not re.fullmatch(quantity, text)]
    kept = [
        text
        for text in kept
        if not re.fullmatch(r"graph, no transfers, spin|[0-9.]+ MiB, [0-9a-f]{12}|b", text)
    ]
    assert [text for text in kept if not re.fullmatch(rf"{quantity} → {quantity}", text)] == []


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        (
            "2 of 12 cases are slower than allowed; the worst is resnet50/fp16/b8: 12.3 % slower.",
            "12 个用例中有 2 个比允许的慢；最严重的是 resnet50/fp16/b8：慢 12.3%。",
        ),
        ("All 5 cases are as fast as before.", "全部 5 个用例与之前一样快。"),
        ("The only case failed.", "唯一的用例失败。"),
        ("2 of 3 cases were not measured validly.", "3 个用例中有 2 个未能有效测量。"),
        (
            "1 of 2 cases is new: nothing is stored to compare it with.",
            "2 个用例中有 1 个是新的：没有可供比较的已存数据。",
        ),
        ("if they are meant: ", "若均属有意："),
        (
            "12.3 % slower (11.1 % slower to 13.5 % slower); clearly above the 0.5 % to ignore",
            "慢 12.3%（慢 11.1% 至 慢 13.5%）；明显高于可忽略的 0.5%",
        ),
        (
            "takes 6.81 × as long (takes 6.7 × as long to 95 % slower); clearly above the 10 % to ignore",
            "耗时为原来的 6.81 倍（耗时为原来的 6.7 倍 至 慢 95%）；明显高于可忽略的 10%",
        ),
        (
            "only 1 of 5 launches are valid: the run was cut short; run again",
            "5 次启动中只有 1 次有效：运行被提前结束；请重新运行",
        ),
        ("measure it alone: ", "单独重测："),
        (
            "12.3 % slower (11.1 % slower to 13.5 % slower) by fresh launches; 5e+03 times likelier 2 % "
            "slower or more than 0.5 % or less; base itself is 3.0 % slower than its baseline, "
            "so head is not to blame",
            "重新启动测得慢 12.3%（慢 11.1% 至 慢 13.5%）；变慢 2% 以上的可能性是不超过 0.5% 的 5e+03 倍；"
            "基准提交本身就比其基线慢 3.0%，因此不是本次改动的责任",
        ),
        ("+10.9 %; lower-is-better, floor 2 %", "+10.9%；越低越好，下限 2%"),
        ("+118.1 %; lower-is-better, floor 10 % and 1 MiB", "+118.1%；越低越好，下限 10% 且 1 MiB"),
    ],
)
def test_the_gates_sentences_are_said_in_chinese(english: str, chinese: str) -> None:
    with use_language("zh-CN"):
        assert translate(english) == chinese
    assert translate(english) == english


def test_what_nobody_translated_stays_and_is_marked() -> None:
    with use_language("zh-CN"):
        shown = translate("a reason of somebody's own")
    assert shown == "a reason of somebody's own" and isinstance(shown, Untranslated)
    page = render(make_run(every_verdict()), "html", "zh-CN")
    assert '<span lang="en">out of budget after 20 blocks</span>' in page
    assert '<span lang="en">' not in render(make_run(every_verdict()), "html", "en")


@given(st.text(max_size=1_500))
def test_any_text_can_be_said(text: str) -> None:
    with use_language("zh-CN"):
        assert translate(text) == text or translate(text)


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_phrase_of_thousands_of_its_own_separators_is_looked_up_quickly(phrase: str) -> None:
    literal = max(re.split(r"%\(\w+\)s", phrase), key=len)
    with use_language("zh-CN"):
        assert translate((literal * 200)[:1_000])


@given(st.floats(min_value=1e-3, max_value=1e3))
def test_a_change_in_english_is_what_the_gate_says(ratio: float) -> None:
    assert fmt.change(ratio) == words.change(ratio)


def test_numbers_are_written_as_the_languages_write_them() -> None:
    from babel.numbers import format_percent, get_decimal_symbol

    assert {get_decimal_symbol("en"), get_decimal_symbol("zh_CN")} == {"."}
    with use_language("zh-CN"):
        assert fmt.share(0.12) == format_percent(0.12, locale="zh_CN") == "12%"
        assert fmt.percent(1.123) == "+12.3%" and fmt.duration(2_319_000) == "2.319 ms"
    assert fmt.share(0.12) == "12 %", "English keeps the space of the SI"


def test_a_language_is_left_when_its_report_is_done() -> None:
    render(make_run(every_verdict()), "markdown", "zh-CN")
    assert i18n.language() == "en"


def test_the_command_speaks_what_is_asked_for_and_else_what_is_set(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    results.write_text(render(make_run(every_verdict()), "json"), encoding="utf-8")

    def report(*flags: str, setting: str = "en") -> str:
        done = subprocess.run(
            [sys.executable, "-m", "perfgate", "report", str(results), *flags],
            cwd=tmp_path,
            env={**package_environment(), "PERFGATE_LANGUAGE": setting, "PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=60,
        )
        assert done.returncode == (2 if "fr" in flags else 0), done.stderr
        return done.stdout

    assert "性能退化" in report("--lang", "zh-CN", "--format", "markdown")
    assert "性能退化" in report(setting="zh-CN")
    assert '<html lang="zh-CN">' in report("--format", "html", setting="zh-CN")
    assert "性能退化" not in report("--lang", "en", setting="zh-CN")
    report("--lang", "fr")
    assert os.environ.get("PERFGATE_LANGUAGE") is None
