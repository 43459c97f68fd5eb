"""Causes planted in ResNet-50 (FP16, batch 8) on a GPU: does the explanation name them, and nothing else?

    python tests/benchmarks/explain_gpu.py --out explain-out                       # about four minutes
    python tests/benchmarks/explain_gpu.py --backend onnxruntime --precision fp32 --shape b=1 --loads 3 \\
        --out explain-cpu                                                         # a rehearsal without a GPU

Against a base that is built with the baseline's timing cache: one convolution more; one block held to FP32;
a fusion broken by an extra graph output; and the same model built without the timing cache. `--loads`
profiled loads a side each, base and head in turn. Then 20 comparisons of base with base: three loads a side,
drawn from all of base's loads, without the rule that engines of the same bytes have no layer that differs.

Written to the folder `--out`: `explain.json` (explanations, and what was expected) after every step, and
`records.json`, the packed layer records and times of all loads, small enough to keep as test data. Exit code
0 when every cause was named and the model without a change was never explained.
"""

from __future__ import annotations

import functools
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import common
import msgspec
from explain_gpu_child import HeldRequest

from perfgate.engine.interface import LayerTimes
from perfgate.errors import PerfgateError
from perfgate.gate.explain.explain import Side, explain_case
from perfgate.measure.launch import EngineTarget
from perfgate.measure.layer_profile import ProfileRequest, profile_sides
from perfgate.model.graph import read_graph
from perfgate.records import EngineFacts, Explanation
from perfgate.util.files import file_digest
from perfgate.util.process import call_child

TRIES = 20
LOADS_A_TRY = 3
# Where the ResNet-50 of models/ is changed: after this block, in this block, and at this inner tensor.
AFTER, HELD, BROKEN = "layer3.2", "layer2.1.", "layer1.1.bn3"
TIMING = common.ROOT / "baselines/nvidia-h200/tensorrt-8.5.3.1/resnet50.fp16.timing"
EXPECTED = {
    "one-layer-more": "new-layers",
    "fp16-lost-on-a-block": "precision",
    "extra-output": "un-fused",
    "rebuilt-without-cache": "build",
}


def with_layer(onnx_file: Path, out: Path, after: str) -> Path:
    """The model with a 3x3 convolution more, behind the last ReLU of the block `after`."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(onnx_file))
    graph = model.graph
    index = max(
        i for i, node in enumerate(graph.node) if node.name.startswith(after) and node.op_type == "Relu"
    )
    tensor = graph.node[index].output[0]
    channels = next(
        weight.dims[1]
        for node in graph.node
        for weight in graph.initializer
        if node.op_type == "Conv" and node.input[0] == tensor and weight.name == node.input[1]
    )
    weights = np.random.default_rng(0).standard_normal((channels, channels, 3, 3)).astype(np.float32) * 0.01
    for node in graph.node:
        for slot, name in enumerate(node.input):
            if name == tensor:
                node.input[slot] = "planted"
    planted = helper.make_node(
        "Conv", [tensor, "planted.weight"], ["planted"], name="planted", kernel_shape=[3, 3], pads=[1] * 4
    )
    graph.initializer.append(numpy_helper.from_array(weights, "planted.weight"))
    graph.node.insert(index + 1, planted)
    onnx.save(model, str(out))
    return out


def with_output(onnx_file: Path, out: Path, tensor: str) -> Path:
    """The model with an inner tensor as one more output."""
    import onnx

    model = onnx.load(str(onnx_file))
    if not any(tensor in node.output for node in model.graph.node):
        raise ValueError(f"no tensor {tensor!r} in {onnx_file}")
    shapes = onnx.shape_inference.infer_shapes(model).graph.value_info
    model.graph.output.append(next(value for value in shapes if value.name == tensor))
    onnx.save(model, str(out))
    return out


class Bench:
    """Builds, profiles and explains; everything that was found is in `rows` and `records`."""

    def __init__(self, options: common.Options, planned: common.Plan, folder: Path) -> None:
        self.options, self.planned, self.folder = options, planned, folder
        self.rows: list[dict[str, Any]] = []
        self.records: dict[str, Any] = {}
        self.base_loads: list[LayerTimes] = []
        self.timing = options.timing if options.timing and options.timing.is_file() else None
        self.base = self.side("base", planned, timing=self.timing)

    def side(self, name: str, planned: common.Plan, *, timing: Path | None = None, held: str = "") -> Side:
        started = time.monotonic()
        if held:
            engine, facts = self._held(name, planned, timing, held)
        else:
            engine, facts = common.build(planned, self.folder / name, timing=timing)
        common.say(f"{name}: built in {time.monotonic() - started:.0f} s, {facts.layers} layers")
        recipe = msgspec.structs.replace(
            planned.request.recipe,
            onnx_digest=read_graph(Path(planned.request.onnx)).onnx_digest,
            timing_cache_digest=file_digest(timing) if timing else "",
        )
        return Side(engine=str(engine), onnx=planned.request.onnx, facts=facts, recipe=recipe)

    def _held(
        self, name: str, planned: common.Plan, timing: Path | None, prefix: str
    ) -> tuple[Path, EngineFacts]:
        home = self.folder / name
        home.mkdir()
        engine = home / "engine"
        request = msgspec.structs.replace(
            planned.request,
            engine=str(engine),
            timing_cache=str(timing.resolve()) if timing else "",
            timing_cache_out=str(home / "timing"),
        )
        asked = HeldRequest(request=request, prefix=prefix)
        python = common.child()
        facts = call_child("explain_gpu_child", asked, EngineFacts, timeout_s=1200, python=python)
        return engine, facts

    def profile(self, head: Side) -> tuple[list[LayerTimes], list[LayerTimes]]:
        requests = [
            ProfileRequest(
                target=EngineTarget(
                    engine=side.engine,
                    case=self.planned.case,
                    folder=self.planned.folder,
                    device=self.options.device,
                )
            )
            for side in (self.base, head)
        ]
        with common.locked(self.options.backend, self.options.device):
            loads = profile_sides(*requests, loads=self.options.loads)
        self.base_loads += loads[0]
        return loads

    def explain(self, name: str, make: Callable[[], Side]) -> None:
        """One planted cause, from the build to the row; an error is its row, and the others go on."""
        started = time.monotonic()
        row: dict[str, Any] = {"name": name, "expected": EXPECTED.get(name, ""), "found": "error"}
        try:
            head = make()
            loads = self.profile(head)
            found = explain_case(self.planned.case, self.base, head, profile=lambda: loads)
            row |= {"found": found.kind, "cause": found.cause, "explanation": msgspec.to_builtins(found)}
            self.records[name] = record(self.base, head, loads, found)
        except (PerfgateError, ValueError, StopIteration) as error:
            row |= {"cause": str(error), "tail": getattr(error, "stderr_tail", "")}
        row["seconds"] = round(time.monotonic() - started, 1)
        common.say(f"{name}: {row['found']}: {row['cause']}")
        self.rows.append(row)
        self.write()

    def no_change(self) -> None:
        """Base against base: loads of the whole session, so that its drift is among them."""
        draw = random.Random(1)
        assert self.base.facts is not None
        other = msgspec.structs.replace(self.base.facts, digest="0" * 64)  # the bytes are not to decide
        head = msgspec.structs.replace(self.base, facts=other)
        kinds = []
        for _ in range(TRIES):
            drawn = draw.sample(self.base_loads, 2 * LOADS_A_TRY)
            sides = drawn[:LOADS_A_TRY], drawn[LOADS_A_TRY:]
            take = functools.partial(_given, sides)
            kinds.append(explain_case(self.planned.case, self.base, head, profile=take).kind)
        silent = kinds.count("nothing-changed")
        self.rows.append(
            {
                "name": "no-change",
                "expected": "nothing-changed",
                "found": "nothing-changed" if silent == TRIES else "explained",
                "cause": f"{silent} of {TRIES} comparisons explain nothing",
                "seconds": 0.0,
            }
        )
        self.write()

    def write(self) -> None:
        about = common.about(self.options.backend, self.options.device)
        common.write(self.options.out / "explain.json", "explain", {**about, "rows": self.rows})
        common.write(self.options.out / "records.json", "explain-records", {"cases": self.records})


def _given(sides: tuple[list[LayerTimes], list[LayerTimes]]) -> tuple[list[LayerTimes], list[LayerTimes]]:
    return sides


def record(
    base: Side, head: Side, loads: tuple[Sequence[LayerTimes], Sequence[LayerTimes]], found: Explanation
) -> dict[str, Any]:
    """What a test needs to explain the same again: layer records, and nanoseconds of each load by layer."""
    sides = {}
    for name, side, of_side in zip(("base", "head"), (base, head), loads, strict=True):
        assert side.facts is not None
        times = {
            layer: [round(one.layers_ns.get(layer, 0.0)) for one in of_side] for layer in of_side[0].layers_ns
        }
        sides[name] = {"digest": side.facts.digest, "layers": side.facts.layer_record, "loads_ns": times}
    return {**sides, "kind": found.kind, "cause": found.cause}


def plant(options: common.Options, folder: Path) -> int:
    """Plant every cause, and tell which were named."""
    planned = common.plan(
        common.ROOT / "models/resnet50.toml",
        options.precision,
        common.parse_shape(options.shape),
        options.backend,
        options.device,
    )
    bench = Bench(options, planned, folder)
    onnx_file = Path(planned.request.onnx)

    def changed(name: str, make: Callable[[Path, Path, str], Path], where: str) -> Side:
        edited = make(onnx_file, folder / f"{name}.onnx", where)
        request = msgspec.structs.replace(planned.request, onnx=str(edited))
        # A digest of its own: the engine cache must not take it for base's.
        request = msgspec.structs.replace(
            request,
            recipe=msgspec.structs.replace(request.recipe, onnx_digest=read_graph(edited).onnx_digest),
        )
        other = msgspec.structs.replace(planned, request=request)
        return bench.side(name, other, timing=bench.timing)

    bench.explain("one-layer-more", lambda: changed("one-layer-more", with_layer, AFTER))
    bench.explain("extra-output", lambda: changed("extra-output", with_output, BROKEN))
    if options.backend.startswith("tensorrt"):
        name = "fp16-lost-on-a-block"
        bench.explain(name, lambda: bench.side(name, planned, timing=bench.timing, held=HELD))
        bench.explain("rebuilt-without-cache", lambda: bench.side("rebuilt-without-cache", planned))
    bench.no_change()
    good = [row["found"] == row["expected"] for row in bench.rows]
    rows = [
        (row["name"], row["found"], f"{row['seconds']:.0f} s", "ok" if fine else "NOT as planted")
        for row, fine in zip(bench.rows, good, strict=True)
    ]
    for row in bench.rows:
        print(f"{row['name']}: {row['cause'].splitlines()[0]}")
    print(common.text_table(("planted", "explanation", "took", "verdict"), rows))
    return 0 if all(good) else 1


def run(options: common.Options) -> int:
    with common.store(None) as folder:
        return plant(options, folder)


OPTIONS = [
    *common.device_options("explain-out"),
    common.option("--precision", default="fp16", help="default: %(default)s"),
    common.option("--shape", default="b=8", help="default: %(default)s"),
    common.option("--loads", type=int, default=5, help="profiled loads a side (default: %(default)s)"),
    common.option("--timing", type=Path, default=TIMING, help="timing cache of base (the H200's)"),
]

if __name__ == "__main__":
    sys.exit(common.main(run, __doc__, OPTIONS))
