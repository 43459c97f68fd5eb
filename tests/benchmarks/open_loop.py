"""Does the simulation of `perfgate value` tell a server's P99? A real one under open-loop Poisson arrivals.

    python tests/benchmarks/open_loop.py --model models/resnet50.toml --precision fp16 --sizes 1 8 32 \\
        --mode graph+transfers+spin --seconds 75 --out open-loop.json
    python tests/benchmarks/open_loop.py --backend onnxruntime --device cpu --model models/tinyconv.toml \\
        --precision fp32 --sizes 1 2 4 8 --seconds 8 --out open-loop.json

One process, one dynamic engine loaded once a batch size, a dynamic batcher in front of it. First the service
times of every size are measured alone, then requests come at shares of the bound (full batches back to back);
a request's latency counts from when it was due. Every rate is then simulated from the service times: on the
very same arrivals with the server's own padding (`simulated`), on 20 other traces (their 5th to 95th
percentile), as `perfgate value` does it for a CUDA graph, and with the times between the sizes interpolated,
as it does for what is enqueued.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common
import msgspec
import numpy as np
from numpy.typing import NDArray
from open_loop_child import Load, OpenLoopReply, OpenLoopRequest, due_times

from perfgate.model.spec import parse_mode
from perfgate.util.process import call_child
from perfgate.value.queueing import Batcher, Lanes, Service, arrivals, replay, simulate

SEEDS = 20
_WARM = 0.1
_OTHER_TRACES = 20_000  # requests of each
_SHARES = (0.3, 0.5, 0.7, 0.85, 0.95)
_NEVER = 1e12

Floats = NDArray[np.float64]


def measured_p99(load: Load, due: Sequence[float]) -> float:
    """The P99 of the requests that were served, the first tenth left out."""
    done = np.repeat(load.done_s, load.sizes)
    latency = done - np.asarray(due[: len(done)])
    return float(np.percentile(latency[int(len(latency) * _WARM) :], 99))


def same_trace(service: Service, due: Sequence[float], max_wait_s: float) -> float:
    """The simulated P99 on given arrivals."""
    cap = max(service.sizes)
    trace = np.concatenate([due, np.full(cap + 1, _NEVER)])[None, :]
    lanes = Lanes(
        seed=np.zeros(1, np.int64), rate=np.ones(1), cap=np.array([cap]), count=np.array([len(due)])
    )
    _, kept = simulate(trace, replay(service, 1, cap), lanes, Batcher(_NEVER, max_wait_s), keep=True)
    return float(np.nanpercentile(kept, 99))


def other_traces(service: Service, rate: float, count: int, max_wait_s: float) -> Floats:
    """The simulated P99 of each of `SEEDS` other traces."""
    cap = max(service.sizes)
    lanes = Lanes(
        seed=np.arange(SEEDS),
        rate=np.full(SEEDS, rate),
        cap=np.full(SEEDS, cap),
        count=np.full(SEEDS, count),
    )
    trace = arrivals(SEEDS, count + cap + 1)
    _, kept = simulate(trace, replay(service, SEEDS, cap), lanes, Batcher(_NEVER, max_wait_s), keep=True)
    found: Floats = np.nanpercentile(kept, 99, axis=1)
    return found


def compare(reply: OpenLoopReply, max_wait_s: float, seed: int) -> list[dict[str, Any]]:
    """Measured and simulated, a rate each."""
    times = {size: [np.asarray(taken)] for size, taken in reply.times_s.items()}
    exact, interpolated = Service(times, padded=True), Service(times)
    bound = interpolated.bound_per_s()
    rows = []
    for number, load in enumerate(reply.loads):
        due = due_times(load.rate_per_s, load.planned, seed + number)
        served = sum(load.sizes)
        count = min(served, _OTHER_TRACES)
        seen = measured_p99(load, due)
        told = same_trace(exact, due[:served], max_wait_s)
        spread = other_traces(exact, load.rate_per_s, count, max_wait_s)
        usual = other_traces(interpolated, load.rate_per_s, count, max_wait_s)
        rows.append(
            {
                "share": load.rate_per_s / bound,
                "rate_per_s": load.rate_per_s,
                "requests": served,
                "complete": served == load.planned,
                "mean_batch": served / max(1, len(load.sizes)),
                "p99_measured_ms": seen * 1e3,
                "p99_simulated_ms": told * 1e3,
                "ratio": told / seen,
                "p99_other_traces_ms": [float(value) * 1e3 for value in np.percentile(spread, [5, 50, 95])],
                "p99_interpolated_ms": float(np.median(usual)) * 1e3,
                "host_behind_us": load.behind_s * 1e6,
            }
        )
    return rows


def under_load_ms(reply: OpenLoopReply, size: int) -> float | None:
    """The median time of the batches that a size served in all loads: is the engine as quick as alone?"""
    sizes = sorted(reply.times_s)
    taken = [
        seconds
        for load in reply.loads
        for served, seconds in zip(load.sizes, load.taken_s, strict=True)
        if min(one for one in sizes if one >= served) == size
    ]
    return float(np.median(taken)) * 1e3 if taken else None


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Build the engine, run the server, simulate."""
    planned = [
        common.plan(
            options.model,
            options.precision,
            {"b": size},
            options.backend,
            options.device,
            mode=parse_mode(options.mode, where="--mode") if options.mode else None,
        )
        for size in options.sizes
    ]
    engine, facts = common.build(planned[0], folder, timing=options.timing)
    request = OpenLoopRequest(
        engine=str(engine),
        cases=tuple(one.case for one in planned),
        folder=planned[0].folder,
        device=options.device,
        shares=tuple(options.shares),
        max_wait_s=options.max_wait_ms / 1e3,
        seconds=options.seconds,
        seed=options.seed,
    )
    with common.locked(options.backend, options.device):
        common.say(f"{request.cases[0].model}: serving {len(request.shares)} rates in {options.seconds:g} s")
        reply = call_child(
            "open_loop_child",
            request,
            OpenLoopReply,
            timeout_s=int(options.seconds * 2 + 120),
            python=common.child(),
        )
    return {
        "model": request.cases[0].model,
        "precision": options.precision,
        "mode": msgspec.to_builtins(request.cases[0].mode),
        "engine": facts.digest,
        "max_wait_ms": options.max_wait_ms,
        "service": {
            str(size): {
                "median_ms": float(np.median(taken)) * 1e3,
                "under_load_ms": under_load_ms(reply, size),
                "samples": len(taken),
            }
            for size, taken in sorted(reply.times_s.items())
        },
        "rates": compare(reply, request.max_wait_s, request.seed),
    }


def show(body: Mapping[str, Any]) -> str:
    """Service times, then P99 by rate."""
    times = [
        (
            size,
            f"{one['median_ms']:.3f}",
            "-" if one["under_load_ms"] is None else f"{one['under_load_ms']:.3f}",
            one["samples"],
        )
        for size, one in body["service"].items()
    ]
    rows = [
        (
            f"{row['rate_per_s']:,.0f}",
            common.percent(row["share"], 0),
            f"{row['requests']:,}" + ("" if row["complete"] else " (cut)"),
            f"{row['mean_batch']:.1f}",
            f"{row['p99_measured_ms']:.3f}",
            f"{row['p99_simulated_ms']:.3f}",
            f"{row['ratio']:.3f}",
            f"{row['p99_other_traces_ms'][0]:.3f} to {row['p99_other_traces_ms'][2]:.3f}",
            f"{row['p99_interpolated_ms']:.3f}",
            f"{row['host_behind_us']:.0f}",
        )
        for row in body["rates"]
    ]
    heads = ("requests/s", "load", "requests", "batch", "P99 ms", "simulated", "ratio", "other traces",
             "interpolated", "host us")  # fmt: skip
    return "\n\n".join(
        (
            common.text_table(("batch", "alone ms", "under load ms", "samples"), times),
            common.text_table(heads, rows),
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    common.add_engine(parser)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 8, 32], help="batch sizes of the engine")
    parser.add_argument("--mode", default="", help="such as graph+transfers (default: the backend's first)")
    parser.add_argument("--shares", type=float, nargs="+", default=list(_SHARES), help="of the bound")
    parser.add_argument("--max-wait-ms", type=float, default=0.0, help="how long a request waits for company")
    parser.add_argument(
        "--seconds", type=float, default=75.0, help="measuring and serving, all rates together"
    )
    parser.add_argument("--seed", type=int, default=1)
    common.add_common(parser, "open-loop.json")
    options = parser.parse_args()
    with common.store(options.store) as folder:
        body = measure(options, folder)
    common.write(options.out, "open-loop", {**common.about(options.backend, options.device), **body})
    print(show(body))
    return 0


if __name__ == "__main__":
    common.leave(main)
