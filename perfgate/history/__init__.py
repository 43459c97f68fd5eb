"""Every run ever measured, in SQL: what goes in, what comes out. Knows records, no other room.

`perfgate.history.store.open_history` opens a database; the records below are what it speaks. Nothing here
imports SQLAlchemy, so that a renderer of points pays nothing for it.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from perfgate.records import Count, Name, Record, RunResult, Sha256, Text

HISTORY_SCHEMA: Final = "perfgate-trt/history/v1"
METRICS: Final = (
    "latency_ns",
    "p99_ns",
    "samples",
    "load_ns",
    "first_inference_ns",
    "peak_memory_bytes",
    "throughput_qps",
)


class LaunchRow(Record):
    """One launch in numbers: the same metrics, named and rounded alike, as a baseline stores. `latency_ns` is
    the median of the samples; an `invalid` launch is kept with its reason and never counted."""

    latency_ns: Count
    p99_ns: Count
    samples: Count
    load_ns: Count
    first_inference_ns: Count
    peak_memory_bytes: Count
    throughput_qps: Annotated[float, Meta(ge=0)]
    invalid: Text = ""


class HistoryRun(Record, kw_only=True):
    """One run as it is stored and exported: a line of an export is one of these.

    `content` is the SHA-256 of the canonical JSON of the result as it was first added, samples included:
    the run's identity. Where `sampled` is false, `result` holds of every series of samples its median
    alone; `launches`, by case id, keeps what the samples said.
    """

    schema: Literal["perfgate-trt/history/v1"]
    content: Sha256
    sampled: bool
    branch: Text = ""
    result: RunResult
    launches: Annotated[dict[Name, tuple[LaunchRow, ...]], Meta(max_length=20_000)]


class RunRow(Record):
    """A run in one line. `environment` is the whole environment's digest, `verdict` empty for a run without
    a summary, `created` ISO 8601 in UTC."""

    run_id: str
    created: str
    perfgate: str
    commit: str
    dirty: bool
    branch: str
    environment: str
    device: str
    toolchain: str
    verdict: str
    exit_code: int
    cases: int
    sampled: bool


class CaseRow(Record):
    """A case of one run: its verdict, its ratio to the base with the interval, and the geometric mean of its
    valid launches' medians; None where there is none."""

    case_id: str
    model: str
    verdict: str
    ratio: float | None
    low: float | None
    high: float | None
    case_digest: str
    engine_digest: str
    launches: int
    latency_ns: float | None


class Promotion(Record):
    """What a baseline names: the run's `created` as the run said it, and its commit (may be empty)."""

    created: str
    commit: str


class Pruned(Record):
    """What pruning did: run ids that went, that stayed, and those of them whose samples went."""

    removed: tuple[str, ...]
    kept: tuple[str, ...]
    thinned: tuple[str, ...]
