"""Which types an opaque engine stores its weights in, looked up in its bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from perfgate.engine.tensorrt.facts import found_share

DRAW = np.random.default_rng(7)
WEIGHTS: list[Any] = [DRAW.standard_normal((64, 96)).astype(np.float32) * 0.02 for _ in range(40)]


def graph(folder: Path, weights: list[Any], *, external: bool = False) -> Path:
    """A graph that multiplies by each weight; the small ones and the ones are not looked for."""
    more = {"scale": np.ones((64, 96), np.float32), "bias": DRAW.standard_normal(96).astype(np.float32)}
    named = {**{f"w{number}": weight for number, weight in enumerate(weights)}, **more}
    tensors = [numpy_helper.from_array(array, name) for name, array in named.items()]
    made = helper.make_graph([helper.make_node("Sum", list(named), ["y"])], "net", [], [], tensors)
    path = folder / "net.onnx"
    where: Any = {"location": "net.data", "size_threshold": 0}
    onnx.save(helper.make_model(made), path, save_as_external_data=external, **where)
    return path


def plan(*blobs: Any) -> bytes:
    noise = np.random.default_rng(1).bytes(1 << 16)
    return b"odd" + noise.join([b"", *(np.ascontiguousarray(blob).tobytes() for blob in blobs), b""])


HALF = [weight.astype(np.float16) for weight in WEIGHTS]


@pytest.mark.parametrize(
    ("blobs", "share"),
    [
        (HALF, {"fp16": 1.0}),
        ([half.T for half in HALF], {"fp16": 1.0}),
        # in blocks of eight columns, as vectorised kernels read them
        ([half.reshape(64, 12, 8).transpose(1, 0, 2) for half in HALF], {"fp16": 1.0}),
        (WEIGHTS, {"fp32": 1.0}),
        ([*WEIGHTS, *HALF], {"fp16": 0.5, "fp32": 0.5}),
        (HALF[:30], {"fp16": 1.0}),  # the rest may be folded into something else
        (HALF[:10], {}),
        ([half * 2 for half in HALF], {}),
        ([], {}),
    ],
    ids=["rows", "columns", "blocks", "fp32", "both", "most", "few", "scaled", "nothing"],
)
def test_weights_are_found_in_the_type_that_they_are_stored_in(
    tmp_path: Path, blobs: list[Any], share: dict[str, float]
) -> None:
    assert found_share(plan(*blobs), graph(tmp_path, WEIGHTS)) == share


def test_parts_of_an_engine_in_either_type_count_by_their_elements(tmp_path: Path) -> None:
    assert found_share(plan(*HALF[:20], *WEIGHTS[20:]), graph(tmp_path, WEIGHTS)) == {
        "fp16": 0.5,
        "fp32": 0.5,
    }


def test_external_weights_and_halves_are_looked_for_too(tmp_path: Path) -> None:
    assert found_share(plan(*HALF), graph(tmp_path, WEIGHTS, external=True)) == {"fp16": 1.0}
    assert found_share(plan(*HALF), graph(tmp_path, HALF)) == {"fp16": 1.0}
