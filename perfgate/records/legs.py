"""Runs of several devices side by side, and what is missing from them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from perfgate.records.base import Name, Record, Text
from perfgate.records.run import RunResult


class Leg(Record):
    """All shards of one leg as one run, or why there is none. A leg with a fault is never green."""

    name: Name
    result: RunResult | None = None
    faults: Annotated[tuple[Text, ...], Meta(max_length=1_000)] = ()

    @property
    def exit_code(self) -> int:
        """1 is the commit's fault and wins; what is missing or does not fit is the infrastructure's."""
        summary = self.result.summary if self.result else None
        if summary is not None and summary.exit_code == 1:
            return 1
        return 3 if self.faults or summary is None else summary.exit_code
