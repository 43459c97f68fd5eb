"""The process of `explain_gpu.py` that builds an engine with some layers held to FP32 (weak typing)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perfgate.engine.gpu import choose
from perfgate.engine.interface import BuildRequest
from perfgate.engine.tensorrt import build as _trt_build
from perfgate.engine.tensorrt.api import load_api
from perfgate.records import EngineFacts, Record
from perfgate.util.process import serve


class HeldRequest(Record):
    """A build in which every layer whose name starts with `prefix` computes in FP32."""

    request: BuildRequest
    prefix: str


def hold(api: Any, config: Any, network: Any, prefix: str) -> int:
    """Constrain the layers; returns how many."""
    kept = (api.trt.LayerType.CONSTANT, api.trt.LayerType.SHAPE)
    held = 0
    for number in range(network.num_layers):
        layer = network.get_layer(number)
        if layer.name.startswith(prefix) and layer.type not in kept:
            layer.precision = api.trt.float32
            for output in range(layer.num_outputs):
                layer.set_output_type(output, api.trt.float32)
            held += 1
    config.set_flag(api.member("BuilderFlag", "OBEY_PRECISION_CONSTRAINTS"))
    return held


def work(asked: HeldRequest) -> EngineFacts:
    choose(asked.request.device)
    api = load_api(asked.request.backend)
    add_profile: Callable[..., None] = _trt_build._add_profile

    # The one place where the builder, its configuration and the parsed network meet.
    def with_constraints(builder: Any, config: Any, network: Any, shapes: Any) -> None:
        add_profile(builder, config, network, shapes)
        if not hold(api, config, network, asked.prefix):
            raise ValueError(f"no layer's name starts with {asked.prefix!r}")

    _trt_build._add_profile = with_constraints
    return _trt_build.build_engine(api, asked.request)


if __name__ == "__main__":
    serve(HeldRequest, work)
