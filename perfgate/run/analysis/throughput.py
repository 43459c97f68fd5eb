"""Throughput over a number of streams: what one device completes in a second when it is kept busy."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from perfgate.errors import CaseError
from perfgate.records import Case, Failed, Measured, Outcome, Record

# Below this a difference between two stream counts is the spread of launches, and fewer streams are simpler.
SAME = 0.01


class Rate(Record):
    """Throughput on `streams` streams: median over launches of samples by wall time."""

    streams: int
    queries_per_s: float
    items_per_s: float


def stream_modes(case: Case, most: int) -> list[Case]:
    """The case on 1, 2, 4, … streams, at most `most`."""
    return [
        msgspec.structs.replace(case, mode=msgspec.structs.replace(case.mode, streams=count))
        for count in (1, 2, 4, 8, 16, 32, 64)
        if count <= most
    ]


def rate(outcome: Outcome, case: Case) -> Rate:
    """The rate of a case on the streams of its mode. Raises `CaseError` where it could not be measured."""
    launches = [one for one in outcome.launches if not one.invalid] if isinstance(outcome, Measured) else []
    streams = case.mode.streams
    if not launches:
        why = outcome.reason if isinstance(outcome, Failed) else "no launch is valid"
        raise CaseError(f"{streams} streams: {why}", fix="run again on a quiet device, or with --most 1")
    queries = statistics.median(len(one.samples_ns) / one.wall_ns * 1e9 for one in launches)
    return Rate(streams=streams, queries_per_s=queries, items_per_s=queries * case.items)


def best(rates: Sequence[Rate]) -> Rate:
    """The fewest streams whose rate is within `SAME` of the highest."""
    top = max(one.queries_per_s for one in rates)
    return next(one for one in rates if one.queries_per_s >= top * (1 - SAME))
