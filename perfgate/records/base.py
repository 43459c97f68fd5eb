"""Scalars with their bounds, and the base of all records."""

from __future__ import annotations

import enum
import hashlib
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_):
        """For type checkers only: options of `Record` hold for its subclasses."""
        return lambda kind: kind


Name = Annotated[str, Meta(min_length=1, max_length=300)]

Text = Annotated[str, Meta(max_length=20_000)]

Packed = Annotated[str, Meta(max_length=2_000_000)]

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]

Count = Annotated[int, Meta(ge=0, lt=1 << 62)]

Positive = Annotated[int, Meta(gt=0, lt=1 << 62)]

Share = Annotated[float, Meta(ge=0.0, le=1.0)]

Series = Annotated[tuple[Count, ...], Meta(max_length=1_000_000)]

Facts = Annotated[dict[Name, Text], Meta(max_length=500)]

Precision = Literal["fp32", "fp16", "int8", "int8+fp16"]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all records: immutable, named fields only, unknown fields refused on reading."""


def digest(record: object) -> str:
    """SHA-256 (hex) of the canonical JSON of a record: sorted keys, no spaces, defaults omitted."""
    return hashlib.sha256(msgspec.json.encode(record, order="sorted")).hexdigest()


class Direction(str, enum.Enum):
    """Which way a metric is worse; a property of the metric, never guessed from its name."""

    LOWER_IS_BETTER = "lower-is-better"
    HIGHER_IS_BETTER = "higher-is-better"


MetricColumns = Annotated[
    dict[Name, Annotated[tuple[float | int, ...], Meta(max_length=10_000)]], Meta(max_length=100)
]
