"""What conversion costs: ResNet-50 to FP16, and INT8 calibrated on 200 images by each method.

    python tests/benchmarks/calibration.py --out calibration.json

Each is a conversion from nothing, in the child process that a run would start. Targets, on two quiet cores:
FP16 in 5 s; INT8 by min-max in 40 s, entropy in 120 s, percentile in 240 s; each under 4 GB. CPU seconds are
shown beside the clock, because a busy machine stretches the one and not the other.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import msgspec

from perfgate.model.onnx_file import materialise
from perfgate.model.precision.convert import emit
from perfgate.model.read import read_spec
from perfgate.records import Precision

STEPS: tuple[tuple[str, Precision, float], ...] = (
    ("fp16", "fp16", 5),
    ("minmax", "int8", 40),
    ("entropy", "int8", 120),
    ("percentile", "int8", 240),
)
LIMIT_BYTES = 4 << 30


def measure(samples: int, only: list[str]) -> list[dict[str, Any]]:
    """One row a step; peak memory is the largest of the children so far, so steps run small to large."""
    rows = []
    spec = read_spec(common.ROOT / "models/resnet50.toml")
    with tempfile.TemporaryDirectory() as name:
        model = materialise(spec, Path(name) / "models")
        for step, precision, target_s in STEPS:
            if only and step not in only:
                continue
            method = {} if precision == "fp16" else {"method": step}
            calibration = msgspec.structs.replace(spec.calibration, samples=samples, **method)
            asked = msgspec.structs.replace(spec, calibration=calibration)
            before, started = os.times(), time.monotonic()
            emit(asked, model, precision, "strong", Path(name) / step)
            seconds, after = time.monotonic() - started, os.times()
            cpu = after.children_user + after.children_system - before.children_user - before.children_system
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
            row = {
                "step": step,
                "seconds": round(seconds, 1),
                "cpu_seconds": round(cpu, 1),
                "target_s": target_s,
                "peak_bytes": peak,
                "met": seconds < target_s and peak < LIMIT_BYTES,
            }
            rows.append(row)
            print(
                f"{step:<11} {seconds:7.1f} s (target {target_s:g})  CPU {cpu:7.1f} s  "
                f"peak {peak / 2**30:.2f} GiB  {'met' if row['met'] else 'MISSED'}",
                flush=True,
            )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--only", nargs="*", default=[], choices=[step for step, _, _ in STEPS])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = measure(options.samples, options.only)
    if options.out:
        options.out.write_text(json.dumps({"samples": options.samples, "rows": rows}, indent=1) + "\n")
    return 0 if all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
