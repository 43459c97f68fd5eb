"""Fresh launches of base and head in turn: one block at a time, until whoever decides has seen enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from perfgate.measure.launch import LaunchRequest, launch
from perfgate.measure.schedule import RETRIES, Job
from perfgate.records import Launch, Record


class Sides(Record):
    """Launches in the order taken. Only valid ones count; `invalid` are kept and shown."""

    base: tuple[Launch, ...] = ()
    head: tuple[Launch, ...] = ()
    invalid: tuple[Launch, ...] = ()

    def of(self, side: str) -> tuple[Launch, ...]:
        return self.base if side == "base" else self.head

    def medians(self, side: str) -> list[float]:
        """The median of each valid launch (ns)."""
        return [one.median_ns for one in self.of(side)]

    def with_launch(self, side: str, one: Launch) -> Sides:
        return msgspec.structs.replace(self, **{side: (*self.of(side), one)})


class Blocks:
    """Launches whole blocks of two jobs. An invalid launch is taken again in its place, at most `RETRIES`
    times a side in all; after that the blocks end."""

    def __init__(
        self,
        base: Job,
        head: Job,
        order: Iterator[tuple[str, str, str, str]],
        *,
        one: Callable[[LaunchRequest], Launch] = launch,
        told: Callable[[str, Launch], None] = lambda *_: None,
    ) -> None:
        self._jobs = {"base": base, "head": head}
        self._order, self._one, self._told = order, one, told
        self._again = {"base": RETRIES, "head": RETRIES}
        self.launched_ns = 0
        self.gave_up = False

    def take(self, sides: Sides) -> Sides:
        """`sides` with one more block. Where the machine does not let a launch be valid, `gave_up` is set."""
        for side in next(self._order):
            found = self.launch(side)
            while found.invalid:
                sides = msgspec.structs.replace(sides, invalid=(*sides.invalid, found))
                if not self._again[side]:
                    self.gave_up = True
                    return sides
                self._again[side] -= 1
                found = self.launch(side)
            sides = sides.with_launch(side, found)
        return sides

    def launch(self, side: str) -> Launch:
        """One launch of a side. Raises `CaseError`."""
        job = self._jobs[side]
        found = self._one(job.launch_request())
        self.launched_ns += found.load_ns + found.first_inference_ns + found.wall_ns + job.protocol.warmup_ns
        self._told(side, found)
        return found


def repeat(blocks: Blocks, side: str, far: Sequence[int], known: dict[int, Launch]) -> dict[int, Launch]:
    """`known` with a second launch for each index in `far` that has none yet; an invalid one is no repeat."""
    found = dict(known)
    for index in far:
        if index not in found:
            again = blocks.launch(side)
            if not again.invalid:
                found[index] = again
    return found
