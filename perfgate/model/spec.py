"""What `models/<name>.toml` may hold: one file a model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from perfgate.errors import SpecError
from perfgate.model.precision_settings import AccuracyPolicy, Calibration, PrecisionPolicy
from perfgate.records import (
    Floor,
    InputData,
    Mode,
    Name,
    Positive,
    Precision,
    RebuildPolicy,
    Record,
    Slo,
    Text,
)

MODEL_SCHEMA = "perfgate-trt/model/v1"
# The metrics beside latency that a gate judges; a test holds this against `perfgate.gate.verdict.metrics`.
JUDGED_METRICS = {
    "throughput_qps",
    "p99_ns",
    "peak_memory_bytes",
    "engine_bytes",
    "device_memory_bytes",
    "build_ns",
}
Rate = Annotated[float, Meta(gt=0, lt=10)]
Variable = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=300)]


class Source(Record):
    """Where the ONNX file comes from: `onnx` is a path, `script` a Python file with `write_onnx`. `requires`
    is a distribution (`name==version`) without which the model's cases are listed as not run. `env` names the
    variables that the model's scripts get beside the usual ones; `reads` are files and folders that count as
    read by them, though they were not seen to be."""

    script: Text = ""
    onnx: Text = ""
    seed: Annotated[int, Meta(ge=0)] = 0
    args: dict[Name, int | float | str | bool] = {}
    timeout_s: Positive = 600
    limit_mib: Positive = 2048
    requires: Annotated[str, Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!-]+)?$")] = ""
    env: Annotated[tuple[Variable, ...], Meta(max_length=100)] = ()
    reads: Annotated[tuple[Text, ...], Meta(max_length=100)] = ()


class DimensionSpec(Record):
    """A named dynamic dimension: the engine's profile, and the values that are measured."""

    min: Positive
    opt: Positive
    max: Positive
    measure: Annotated[tuple[Positive, ...], Meta(min_length=1, max_length=100)]


class SkipRule(Record, kw_only=True):
    """Cases listed as not run, with the reason. `cases` is a shell pattern on `precision/shape`."""

    backend: Name = "*"
    device: Name = "*"
    cases: Name = "*"
    reason: Name


class CaseRule(Record, kw_only=True):
    """Settings of some cases of the model; `cases` is a shell pattern on `precision/shape`. Of several rules
    that fit a case the most specific wins, setting by setting: the one with the most letters that are no
    wildcard."""

    cases: Name
    ignore: Rate | None = None
    catch: Rate | None = None
    floors: dict[Name, Floor] = {}


class ModelSpec(Record, kw_only=True):
    """One model as its TOML file describes it; `path` is where it was read from."""

    schema: Literal["perfgate-trt/model/v1"]
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
    description: Text = ""
    precisions: Annotated[tuple[Precision, ...], Meta(min_length=1, max_length=4)]
    source: Source
    dims: dict[Name, DimensionSpec] = {}
    inputs: dict[Name, InputData] = {}
    plugins: tuple[Text, ...] = ()
    modes: tuple[Name, ...] = ()
    options: dict[Name, str | int | float | bool] = {}
    ignore: Rate | None = None
    catch: Rate | None = None
    floors: dict[Name, Floor] = {}
    rule: tuple[CaseRule, ...] = ()
    slo: Slo = Slo()
    builds: Annotated[int, Meta(ge=1, le=20)] = RebuildPolicy().builds
    pick: Literal["best", "any"] = RebuildPolicy().pick
    precision: PrecisionPolicy = PrecisionPolicy()
    calibration: Calibration = Calibration()
    accuracy: AccuracyPolicy = AccuracyPolicy()
    skip: tuple[SkipRule, ...] = ()
    path: str = ""

    @property
    def folder(self) -> Path:
        return Path(self.path).parent


def parse_mode(text: str, *, where: str) -> Mode:
    """`graph`, `enqueue`, `call`, with `+transfers`, `+spin`, `+x4` (streams) behind; else `SpecError`."""
    drive, *more = text.split("+")
    fields: dict[str, Any] = {"drive": drive}
    for word in more:
        if word == "transfers":
            fields["transfers"] = True
        elif word == "spin":
            fields["wait"] = "spin"
        elif re.fullmatch(r"x[1-9][0-9]?", word):
            fields["streams"] = int(word[1:])
        else:
            fields["drive"] = text
    try:
        return msgspec.convert(fields, Mode)
    except msgspec.ValidationError as error:
        raise SpecError(
            f"no such mode: {text!r}",
            where=where,
            fix="graph, enqueue or call, then any of +transfers, +spin, +x4: such as graph+transfers",
        ) from error
