"""Several GPUs under pytest-xdist: each worker measures its own share of the cases on its own GPU.

Every worker holds the whole selection and walks over all shards, its own first. Whoever comes first to a
shard takes its lock and measures it; whoever comes later reads what was written. On a CPU, or on one GPU,
there is one shard, so one worker measures for all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from perfgate.engine.gpu import visible_count
from perfgate.errors import UsageError
from perfgate.records import Manifest, Record, RunResult, Scope
from perfgate.settings import Settings

T = TypeVar("T")


class Shard(Record):
    """Share `number` of `count`, measured on `device` (a device setting)."""

    number: int
    count: int
    device: str

    def of(self, items: Sequence[T]) -> list[T]:
        """This shard's items: every `count`-th, so that a model's cases spread over the devices."""
        return list(items[self.number :: self.count])


def plan_shards(settings: Settings, kind: str, *, workers: int, mine: int) -> list[Shard]:
    """The shards of a run in the order in which worker number `mine` of `workers` visits them."""
    gpus = visible_count() if kind == "gpu" and settings.device == "auto" and workers > 1 else 1
    count = max(1, min(gpus, workers))
    if count == 1:
        return [Shard(number=0, count=1, device=settings.device)]
    shards = [Shard(number=number, count=count, device=str(number)) for number in range(count)]
    start = mine % count
    return shards[start:] + shards[:start]


def join(parts: Sequence[RunResult], order: Sequence[str]) -> RunResult:
    """The results of all shards as one, its cases in the order of these ids; its summary is not made."""
    place = {case_id: number for number, case_id in enumerate(order)}
    cases = [case for part in parts for case in part.cases]
    cases.sort(key=lambda case: place.get(case.case.id, len(place)))
    manifests = join_manifests(parts)
    return msgspec.structs.replace(parts[0], cases=tuple(cases), manifests=manifests, summary=None)


def join_manifests(parts: Sequence[RunResult]) -> dict[str, tuple[Manifest, ...]]:
    """What the scripts of each model read; two parts may have made the same model."""
    found: dict[str, dict[str, Manifest]] = {}
    for part in parts:
        for model, manifests in part.manifests.items():
            found.setdefault(model, {}).update({one.key: one for one in manifests})
    return {model: tuple(known.values()) for model, known in found.items()}


def read_scope(leg: str | None, shard: str | None, plan: Sequence[str], *, device: str) -> Scope | None:
    """The scope that `--leg NAME` and `--shard I/N` state; None without them. Raises `UsageError`."""
    if leg is None and shard is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,2})/([1-9]\d{0,2})", shard or "1/1")
    if found is None or int(found[1]) > int(found[2]):
        raise UsageError(f"is not I/N with I from 1 to N: {shard!r}", where="--shard", fix="--shard 1/4")
    name = leg or device
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}", name):
        raise UsageError("has characters that no runner's label has", where="--leg")
    return Scope(leg=name, plan=tuple(plan), shard=int(found[1]), shards=int(found[2]))


def share(items: Sequence[T], scope: Scope | None, key: Callable[[T], str]) -> list[T]:
    """The items of a scope's shard: every case of the plan falls to exactly one shard."""
    if scope is None:
        return list(items)
    mine = set(scope.plan[scope.shard - 1 :: scope.shards])
    return [item for item in items if key(item) in mine]
