"""What is told of long work: how far it is, and no number that nobody knows."""

from __future__ import annotations

import io
import re

from rich.console import Console

from perfgate.util.progress import BarProgress, PlainProgress


def test_lines_have_the_time_left_until_the_plan_is_done_and_only_a_count_beyond_it() -> None:
    said: list[str] = []
    progress = PlainProgress(said.append)
    progress.start(2)
    for note in ("1 ms", "invalid: hot", "2 ms"):
        progress.step("net/fp16", note)
    assert re.fullmatch(r"\[1/2, \d+ s left\] net/fp16: 1 ms", said[0])
    assert said[1:] == ["[2/2, 0 s left] net/fp16: invalid: hot", "[3] net/fp16: 2 ms"]


def test_a_bar_without_a_plan_counts() -> None:
    sink = io.StringIO()
    with BarProgress(Console(file=sink, force_terminal=True, width=100)) as progress:
        progress.step("net/fp16", "2 launches a side")
    assert "1/1" in sink.getvalue()


def test_a_bar_never_counts_more_than_there_is() -> None:
    sink = io.StringIO()
    with BarProgress(Console(file=sink, force_terminal=True, width=100)) as progress:
        progress.start(1)
        progress.step("net/fp16", "1 ms")
        progress.step("net/fp16", "2 ms")
    counts = set(re.findall(r"\d+/\d+", sink.getvalue()))
    assert "2/2" in counts and "2/1" not in counts
