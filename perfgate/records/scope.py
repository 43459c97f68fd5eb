"""What a shard of a run was to measure: without it, nobody could tell half a run from a whole one."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from perfgate.records.base import Name, Record


class Scope(Record):
    """Share `shard` of `shards` of the cases in `plan`, on the leg `leg`: a runner's label, mostly."""

    leg: Name
    plan: Annotated[tuple[Name, ...], Meta(max_length=20_000)]
    shard: Annotated[int, Meta(ge=1, le=1_000)] = 1
    shards: Annotated[int, Meta(ge=1, le=1_000)] = 1
