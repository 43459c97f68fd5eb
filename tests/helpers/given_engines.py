"""A side of an explanation, built for real: ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

from perfgate.engine import get_backend
from perfgate.engine.cache import EngineCache
from perfgate.engine.interface import BuildRequest
from perfgate.gate.explain.explain import Side
from perfgate.records import Recipe
from perfgate.util.files import file_digest


def built_side(model: Path) -> Side:
    """The engine of an ONNX file in FP32, in an engine cache beside it."""
    recipe = Recipe(
        backend="onnxruntime",
        onnx_digest=file_digest(model),
        precision="fp32",
        options=get_backend("onnxruntime", "cpu").build_options(),
    )
    request = BuildRequest(backend="onnxruntime", recipe=recipe, onnx=str(model), device="cpu")
    engine, facts = EngineCache(model.parent / "engines").get(request, timeout_s=120)
    return Side(engine=str(engine), onnx=str(model), facts=facts, recipe=recipe)
