"""How long a case took on its way to its first launch, stage by stage."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from perfgate.records.base import Count, Record

StageName = Literal["export", "conversion", "calibration", "reference"]


class Stages(Record):
    """Nanoseconds by the wall clock, each where the work was really done; a stage whose product came from a
    cache (`cached`) keeps what it took when it was made, and is in `unknown` where that was not kept.
    None, and not `unknown`, is a stage that this case has not.

    `export_ns`: the model script wrote the ONNX file. `conversion_ns`: that graph became the precision's.
    `calibration_ns`: of it, reading the calibration data, running the network on it, and placing the scales.
    `reference_ns`: the reference answered. `verification_ns`: the engine answered and was held against it.
    The build is `EngineFacts.build_ns`, loads and first inferences are each launch's own.
    """

    export_ns: Count | None = None
    conversion_ns: Count | None = None
    calibration_ns: Count | None = None
    reference_ns: Count | None = None
    verification_ns: Count | None = None
    cached: Annotated[tuple[StageName, ...], Meta(max_length=10)] = ()
    unknown: Annotated[tuple[StageName, ...], Meta(max_length=10)] = ()
