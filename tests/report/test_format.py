import pytest

from perfgate.records import Commit, Interval
from perfgate.report import format as fmt


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 ns"),
        (65, "65 ns"),
        (65.5, "65.5 ns"),
        (999.96, "1.000 µs"),
        (1_000, "1.000 µs"),
        (65_432, "65.43 µs"),
        (999_960, "1.000 ms"),
        (2_054_321, "2.054 ms"),
        (123_456_789, "123.5 ms"),
        (1_234_567_890, "1.235 s"),
        (12_345_000_000_000, "12345 s"),
        (float("inf"), "—"),
        (float("nan"), "—"),
    ],
)
def test_a_duration_has_four_significant_digits(value: float, text: str) -> None:
    assert fmt.duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (512, "512 B"), (2048, "2.000 KiB"), (51_300_000, "48.92 MiB"), (8 << 30, "8192 MiB")],
)
def test_a_size_is_in_mebibytes(value: int, text: str) -> None:
    assert fmt.size(value) == text


@pytest.mark.parametrize(
    ("ratio", "words", "signed"),
    [
        (1.123, "12.3 % slower", "+12.3 %"),
        (0.9, "10.0 % faster", "−10.0 %"),
        (1.004, "0.40 % slower", "+0.40 %"),
        (1.00001, "no change", "0.00 %"),
        (0.99999, "no change", "0.00 %"),
        (0.9901, "0.99 % faster", "−0.99 %"),
        (0.9899, "1.0 % faster", "−1.0 %"),
        (3.2, "takes 3.20 × as long", "+220.0 %"),
        (float("nan"), "—", "—"),
    ],
)
def test_a_ratio_is_said_in_words(ratio: float, words: str, signed: str) -> None:
    assert (fmt.change(ratio), fmt.percent(ratio)) == (words, signed)


def test_an_interval_names_its_confidence() -> None:
    shift = Interval(estimate=1.1, low=1.05, high=1.15, confidence=0.9998)
    assert fmt.interval(shift) == "99.98 % interval +5.0 % to +15.0 %"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("a\nb\r\nc\td", "a b c d"),
        ("\x1b[31mred\x1b[0m\x07", "red"),
        ("\x1b]8;;https://evil\x07link\x1b]8;;\x07", "link"),
        ("\x1b]0;never closed", "0;never closed"),
        ("\x9b31mred", "red"),
        ("abc\u202egpj.exe\u2066", "abcgpj.exe"),
        ("half \ud800 a pair", "half \ufffd a pair"),
        ("x" * 400, "x" * 299 + "…"),
    ],
)
def test_foreign_text_becomes_one_harmless_line(raw: str, shown: str) -> None:
    assert fmt.line(raw) == shown


def test_an_error_tail_keeps_its_end_and_says_that_it_was_cut() -> None:
    assert fmt.tail("one\n\x1b[1mtwo\x1b[0m\n") == "one\ntwo"
    cut = fmt.tail("x" * 5_000 + "the end")
    assert cut.startswith("… (earlier lines") and cut.endswith("the end") and len(cut) < 4_100


@pytest.mark.parametrize(
    ("step", "parts"),
    [
        ("perfgate doctor", ((True, "perfgate doctor"),)),
        ("store it: perfgate promote r.json", ((False, "store it: "), (True, "perfgate promote r.json"))),
        ("run `pytest -k a` again", ((False, "run "), (True, "pytest -k a"), (False, " again"))),
        ("an odd ` tick", ((False, "an odd ` tick"),)),
        ("ask your team", ((False, "ask your team"),)),
    ],
)
def test_a_step_tells_advice_from_command(step: str, parts: object) -> None:
    assert fmt.spans(step) == parts


def test_a_run_outside_git_says_so() -> None:
    assert fmt.commit(Commit()) == "not in a git repository"
