"""Progress of long work: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any


class PlainProgress:
    """One line a launch, with the time left; for logs and for pytest's own terminal reporter."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._total = self._done = 0
        self._started = time.monotonic()

    def start(self, total: int) -> None:
        self._total, self._done, self._started = total, 0, time.monotonic()

    def step(self, case_id: str, note: str) -> None:
        self._done += 1
        where = str(self._done)  # repeats and confirmations are beyond the plan: nobody knows how many
        if self._done <= self._total:
            left_s = (time.monotonic() - self._started) / self._done * (self._total - self._done)
            where = f"{self._done}/{self._total}, {left_s:.0f} s left"
        self.say(f"[{where}] {case_id}: {note}")

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class BarProgress(PlainProgress):
    """A rich bar with the time left, on standard error."""

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task: Any = None
        super().__init__(lambda text: self._bar.console.print(text, markup=False, highlight=False))

    def start(self, total: int) -> None:
        self._total, self._done = total, 0
        self._task = self._bar.add_task("measuring", total=total)

    def step(self, case_id: str, note: str) -> None:
        if self._task is None:  # a confirmation without a screen before it has no plan
            self.start(0)
        self._done += 1
        total = max(self._done, self._total)  # never 4 of 3
        self._bar.update(self._task, completed=self._done, total=total, description=f"{case_id}: {note}")

    def __enter__(self) -> BarProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def make_progress() -> PlainProgress:
    """The progress that fits standard error."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        return BarProgress(console)
    return PlainProgress(lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True))
