"""What perfgate itself adds to a time: its GPU-compute median against a bare loop of CUDA events.

    python tests/benchmarks/overhead.py --model models/resnet50.toml --precision fp16 --shape b=8 \\
        --modes enqueue+spin graph+spin --processes 2 --rounds 10 --out overhead.json

In one process, over the same execution context, buffers and stream, the contestants take turns in a random
order of each round: perfgate's timed loop without and with its telemetry thread, a bare loop that keeps two
queries queued as trtexec does, and a bare loop of one query at a time. Ratios are of medians in one round.

Targets: perfgate / bare within 0.5 % of 1, and with telemetry / without within 0.5 %. The loop of one query
at a time is shown and not judged: where the execution is enqueued, it holds the host's time to enqueue.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common
import msgspec
from overhead_child import OverheadReply, OverheadRequest

from perfgate.model.spec import parse_mode
from perfgate.util.process import call_child

TARGET = 0.005
# What is divided by what; the first two are judged.
RATIOS = (
    ("perfgate", "bare"),
    ("perfgate+telemetry", "perfgate"),
    ("perfgate+telemetry", "bare"),
    ("perfgate", "bare, one at a time"),
)
_JUDGED = 2
_CHILD_TIMEOUT_S = 560


def ratios(medians: Sequence[Mapping[str, Sequence[float]]]) -> list[dict[str, Any]]:
    """Each pair's ratio by round over all processes, its geometric mean, and whether that is on target.

    `medians` has one entry a process: medians by contestant, one a round.
    """
    found = []
    for number, (over, under) in enumerate(RATIOS):
        rounds = [
            first / second
            for process in medians
            if over in process and under in process
            for first, second in zip(process[over], process[under], strict=True)
        ]
        if rounds:
            logs = [math.log(ratio) for ratio in rounds]
            mean = math.exp(statistics.fmean(logs))
            spread = statistics.stdev(logs) if len(logs) > 1 else 0.0
            found.append(
                {
                    "ratio": f"{over} / {under}",
                    "mean": mean,
                    "cv": spread,
                    "rounds": rounds,
                    "on_target": abs(mean - 1) <= TARGET if number < _JUDGED else None,
                }
            )
    return found


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The ratios by mode; one engine serves them all."""
    planned = common.plan(options.model, options.precision, options.shape, options.backend, options.device)
    engine, facts = common.build(planned, folder, timing=options.timing)
    modes = {}
    with common.locked(options.backend, options.device):
        for text in options.modes:
            case = msgspec.structs.replace(planned.case, mode=parse_mode(text, where="--modes"))
            medians = []
            for process in range(options.processes):
                request = OverheadRequest(
                    engine=str(engine),
                    case=case,
                    folder=planned.folder,
                    device=options.device,
                    rounds=options.rounds,
                    samples=options.samples,
                    warmup_ns=options.warmup_ms * 1_000_000,
                    seed=process,
                )
                common.say(f"{text}: process {process}")
                reply = call_child(
                    "overhead_child",
                    request,
                    OverheadReply,
                    timeout_s=_CHILD_TIMEOUT_S,
                    python=common.child(),
                )
                medians.append(reply.medians_ns)
            modes[text] = {"medians_ns": medians, "ratios": ratios(medians)}
    return {"case": planned.case.id, "engine": facts.digest, "target": TARGET, "modes": modes}


def show(modes: Mapping[str, Any]) -> str:
    """Medians by contestant, then ratios, of every mode."""
    times = [
        (
            mode,
            name,
            f"{statistics.fmean(statistics.fmean(one[name]) for one in found['medians_ns']) / 1e6:.4f}",
        )
        for mode, found in modes.items()
        for name in found["medians_ns"][0]
    ]
    rows = [
        (
            mode,
            one["ratio"],
            f"{one['mean']:.5f}",
            common.percent(one["cv"]),
            len(one["rounds"]),
            {True: "yes", False: "NO", None: "-"}[one["on_target"]],
        )
        for mode, found in modes.items()
        for one in found["ratios"]
    ]
    return "\n\n".join(
        (
            common.text_table(("mode", "loop", "median ms"), times),
            common.text_table(("mode", "ratio", "mean", "CV", "rounds", "within 0.5 %"), rows),
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    common.add_engine(parser)
    parser.add_argument("--shape", type=common.parse_shape, default={}, help="such as b=8")
    parser.add_argument("--modes", nargs="+", default=["enqueue+spin", "graph+spin"])
    parser.add_argument("--processes", type=int, default=2, help="of each mode")
    parser.add_argument("--rounds", type=int, default=10, help="of each process")
    parser.add_argument("--samples", type=int, default=500, help="of each contestant in a round")
    parser.add_argument("--warmup-ms", type=int, default=500)
    common.add_common(parser, "overhead.json")
    options = parser.parse_args()
    with common.store(options.store) as folder:
        body = measure(options, folder)
    common.write(options.out, "overhead", {**common.about(options.backend, options.device), **body})
    print(show(body["modes"]))
    return 0


if __name__ == "__main__":
    common.leave(main)
