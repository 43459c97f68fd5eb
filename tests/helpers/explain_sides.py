"""Sides of explanations for these tests: real layers of three engines, with times made up and said so.

`data/layers_resnet50_fp16_trt-8.5.3_h200.json` holds the layer records of a ResNet-50 (FP16, batch 8) that
TensorRT 8.5.3 built on an H200 (`x0`), of the same with one layer more (`x1`), and of a build without the
timing cache (`x0_rebuilt_without_cache`). No times were recorded with them: `loads` draws them, 7.5 us a
layer give or take its own constant, each load with a state of its own that all its layers share, and with
noise of half a percent.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path

from perfgate.engine.interface import LayerTimes
from perfgate.engine.tensorrt.inspect import Layer, Layers, pack_layers, unpack_layers
from perfgate.gate.explain.explain import Side
from perfgate.records import Case, EngineFacts, Environment, Launch, Recipe, Tolerance

DATA = (
    Path(__file__).resolve().parents[1]
    / "gate"
    / "explain"
    / "data"
    / "layers_resnet50_fp16_trt-8.5.3_h200.json"
)
CASE = Case(
    id="resnet50/fp16/b8",
    model="resnet50",
    backend="tensorrt",
    precision="fp16",
    shape={"b": 8},
    tolerance=Tolerance(ignore=0.005, catch=0.02),
)


def engine(name: str) -> tuple[Layer, ...]:
    return unpack_layers(json.loads(DATA.read_text())[name]).layers


def facts(layers: tuple[Layer, ...], *, digest: str = "", notes: tuple[str, ...] = ()) -> EngineFacts:
    record = pack_layers(Layers(detailed=True, layers=layers))
    made = digest or hashlib.sha256(record.encode()).hexdigest()
    return EngineFacts(digest=made, engine_bytes=1, layers=len(layers), layer_record=record, notes=notes)


def recipe(onnx: str = "0" * 64, **versions: str) -> Recipe:
    return Recipe(backend="tensorrt", onnx_digest=onnx, precision="fp16", versions=versions)


def side(layers: tuple[Layer, ...], *, gated_ns: int = 0, digest: str = "") -> Side:
    launches = tuple(
        Launch(samples_ns=(gated_ns,), wall_ns=gated_ns, load_ns=1, first_inference_ns=1) for _ in range(5)
    )
    return Side(
        facts=facts(layers, digest=digest),
        recipe=recipe(),
        environment=Environment(device="d", toolchain="t", key={"driver": "1"}),
        launches=launches if gated_ns else (),
    )


def usual_ns(layer: Layer) -> float:
    """A made-up time that is the layer's own in every engine: of its name, not of its kernel."""
    if layer.type == "NoOp":
        return 0.0
    return 3_000 + int(hashlib.sha256(layer.name.encode()).hexdigest()[:4], 16) % 9_000


def loads(
    layers: tuple[Layer, ...],
    seed: int,
    *,
    factor: Mapping[str, float] | None = None,
    state: float = 1.0,
    count: int = 5,
    noise: float = 0.005,
) -> list[LayerTimes]:
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        own = state * draw.gauss(1, 0.01)
        times = {
            layer.name: max(
                0.0, usual_ns(layer) * (factor or {}).get(layer.name, 1.0) * own * draw.gauss(1, noise)
            )
            for layer in layers
        }
        found.append(LayerTimes(layers_ns=times, queries=100))
    return found


def profiled(
    base: list[LayerTimes], head: list[LayerTimes]
) -> Callable[[], tuple[list[LayerTimes], list[LayerTimes]]]:
    return lambda: (base, head)
