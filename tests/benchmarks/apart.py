"""perfgate's launches against trtexec's loop in processes of its own: do they read the same engine alike?

    python tests/benchmarks/apart.py --model models/resnet50.toml --precision fp16 --shape b=8 \\
        --launches 10 --out apart.json

Each launch is a fresh process, perfgate's and the peer's in a random order of each pair. The peer is written
against TensorRT and PyCUDA alone and does what `trtexec --noDataTransfers --useSpinWait` (with --useCudaGraph
for a graph) does: 200 ms of warm-up, then 3 s with the next query enqueued before the last one is waited for.

Target: the two sides differ by less than launches of one side do (their standard deviation).
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
from apart_child import BareReply, BareRequest
from scipy import stats

from perfgate.errors import UsageError
from perfgate.measure.launch import LaunchRequest, launch
from perfgate.model.spec import parse_mode
from perfgate.settings import Settings
from perfgate.util.process import call_child

_CHILD_TIMEOUT_S = 120


def compared(ours_ns: Sequence[float], theirs_ns: Sequence[float]) -> dict[str, Any]:
    """The ratio of the sides' geometric means with Welch's 95 % interval on logarithms, and the noise of a
    launch: the pooled standard deviation of log medians.

    Welch (1947), Biometrika 34, 28-35.
    """
    ours, theirs = ([math.log(one) for one in side] for side in (ours_ns, theirs_ns))
    found = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    shift = statistics.fmean(ours) - statistics.fmean(theirs)
    noise = math.sqrt((statistics.variance(ours) + statistics.variance(theirs)) / 2)
    return {
        "ratio": math.exp(shift),
        "interval": [math.exp(found.low), math.exp(found.high)],
        "launch_noise": noise,
        "within_noise": abs(shift) < noise,
    }


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both sides by mode, one engine for all."""
    if options.backend != "tensorrt":
        raise UsageError("the peer runs TensorRT engines only", where="--backend", fix="--backend tensorrt")
    planned = common.plan(options.model, options.precision, options.shape, options.backend, options.device)
    engine, facts = common.build(planned, folder, timing=options.timing)
    protocol = Settings(root=str(common.ROOT)).protocol("gpu")
    modes: dict[str, Any] = {}
    with common.locked(options.backend, options.device):
        for text in options.modes:
            mode = parse_mode(text, where="--modes")
            if mode.transfers or mode.streams > 1 or mode.wait != "spin":
                raise UsageError("the peer has no such mode", where=f"--modes {text}", fix="graph+spin")
            target = common.target(planned, engine, options.device).in_mode(mode)
            bare = BareRequest(
                engine=str(engine),
                sizes=tuple(planned.case.shape.values()),
                graph=mode.drive == "graph",
                device=options.device,
            )
            sides: dict[str, list[float]] = {"perfgate": [], "trtexec's loop": []}
            draw = random.Random(options.seed)
            for _ in range(options.launches):
                for side in draw.sample(sorted(sides), 2):
                    if side == "perfgate":
                        taken = launch(LaunchRequest(target=target, protocol=protocol))
                        median_ns = taken.median_ns
                        if taken.invalid:
                            common.say(f"{text}: left out, {taken.invalid}")
                            continue
                    else:
                        median_ns = _bare(bare).median_ns
                    sides[side].append(median_ns)
                    common.say(f"{text}: {side} {median_ns / 1e6:.4f} ms")
            enough = min(map(len, sides.values())) > 1
            modes[text] = {"medians_ns": sides, **(compared(*sides.values()) if enough else {})}
    return {"case": planned.case.id, "engine": facts.digest, "modes": modes}


def _bare(request: BareRequest) -> BareReply:
    return call_child("apart_child", request, BareReply, timeout_s=_CHILD_TIMEOUT_S, python=common.child())


def show(modes: dict[str, Any]) -> str:
    rows = [
        (
            mode,
            *(f"{statistics.median(one) / 1e6:.4f}" for one in found["medians_ns"].values()),
            f"{found['ratio']:.5f}",
            "{:.5f} to {:.5f}".format(*found["interval"]),
            common.percent(found["launch_noise"], 3),
            "yes" if found["within_noise"] else "NO",
        )
        for mode, found in modes.items()
        if "ratio" in found
    ]
    head = ("mode", "perfgate ms", "trtexec's loop ms", "ratio", "95 %", "launch noise", "within it")
    return common.text_table(head, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    common.add_engine(parser)
    parser.add_argument("--shape", type=common.parse_shape, default={}, help="such as b=8")
    parser.add_argument("--modes", nargs="+", default=["graph+spin", "enqueue+spin"])
    parser.add_argument("--launches", type=int, default=10, help="of each side and mode, 2 or more")
    parser.add_argument("--seed", type=int, default=1)
    common.add_common(parser, "apart.json")
    options = parser.parse_args()
    with common.store(options.store) as folder:
        body = measure(options, folder)
    common.write(options.out, "apart", {**common.about(options.backend, options.device), **body})
    print(show(body["modes"]))
    return 0


if __name__ == "__main__":
    common.leave(main)
