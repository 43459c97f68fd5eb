"""How large the report of a run is, and how long it takes to render.

    python tests/benchmarks/report_speed.py --cases 500 --samples 1000

Makes a run of measured cases, five launches each with telemetry, one in ten a regression with
base's own launches beside head's, and renders it in
every format and language. The first rendering also loads Jinja and vl-convert.

Targets for 500 cases: HTML below 1.5 MB and within 3 s; Markdown at most 60,000 characters.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

from perfgate.gate.statistics.noise import ratio_interval
from perfgate.gate.verdict.latency import decide, explain
from perfgate.gate.verdict.summary import summarise
from perfgate.records import (
    RESULTS_SCHEMA,
    Case,
    CaseResult,
    EngineFacts,
    Environment,
    Judgement,
    Launch,
    Measured,
    Mode,
    Protocol,
    RunResult,
    Telemetry,
    Tolerance,
    columns,
)
from perfgate.report import render
from perfgate.report.i18n import LANGUAGES
from perfgate.run.outputs import read_results
from perfgate.util.files import record_json
from perfgate.util.process import package_environment

TARGET_S, TARGET_BYTES, TARGET_CHARACTERS = 3.0, 1_500_000, 60_000


def made_run(cases: int, samples: int, seed: int = 1) -> RunResult:
    """A run of so many cases, judged by the gate's own rules."""
    draw = random.Random(seed)
    results = tuple(_case(draw, number, samples) for number in range(cases))
    return RunResult(
        schema=RESULTS_SCHEMA,
        run_id="benchmark",
        created="2026-01-01T00:00:00Z",
        perfgate="0",
        environment=Environment(
            device="nvidia-h200", toolchain="tensorrt-8.5.3.1", key={"gpu": "NVIDIA H200"}
        ),
        protocol=Protocol(),
        cases=results,
        summary=summarise(results, results="results.json"),
    )


def _case(draw: random.Random, number: int, samples: int) -> CaseResult:
    tolerance = Tolerance(ignore=0.005, catch=0.02)
    level = 1_000_000 + 1_000 * number
    base_launches = tuple(_launch(draw, level, samples) for _ in range(5))
    base = columns(base_launches)
    launches = tuple(_launch(draw, level * (1.05 if number % 10 == 0 else 1.0), samples) for _ in range(5))
    head = columns(launches)
    ratio = ratio_interval(base["latency_ns"], head["latency_ns"], prior_cv=0.007)
    verdict = decide(ratio, tolerance)
    return CaseResult(
        case=Case(
            id=f"model-{number}/fp16/b8",
            model=f"model-{number}",
            backend="tensorrt",
            precision="fp16",
            shape={"b": 8},
            mode=Mode(drive="graph", wait="spin"),
            tolerance=tolerance,
            source=f"models/model-{number}.toml",
        ),
        outcome=Measured(
            engine=EngineFacts(
                digest="ab" * 32,
                engine_bytes=51_300_000,
                build_ns=45_000_000_000,
                layers=57,
                precision_share={"fp16": 0.93, "fp32": 0.07},
                device_memory_bytes=33 << 20,
            ),
            launches=launches,
            base_launches=base_launches if number % 10 == 0 else (),
        ),
        judgement=Judgement(
            verdict=verdict, reason=explain(verdict, ratio, tolerance), ratio=ratio, base=base, head=head
        ),
    )


def _launch(draw: random.Random, level: float, samples: int) -> Launch:
    own = level * draw.gauss(1, 0.003)
    taken = tuple(max(1, round(own * draw.gauss(1, 0.004))) for _ in range(samples))
    return Launch(
        samples_ns=taken,
        wall_ns=sum(taken),
        load_ns=700_000_000,
        first_inference_ns=2_000_000,
        peak_memory_bytes=550 << 20,
        telemetry=Telemetry(
            sm_clock_mhz=(1980,) * 12,
            memory_clock_mhz=(2619,) * 12,
            power_mw=tuple(draw.randrange(300_000, 420_000) for _ in range(12)),
            temperature_c=(45,) * 12,
            energy_mj=400_000,
        ),
    )


def run(options: common.Options) -> int:
    """Print a row a rendering; 1 where a target is missed."""
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.json")
        path.write_text(record_json(made_run(options.cases, options.samples)), encoding="utf-8")
        result = read_results(path)
        size = f"{path.stat().st_size:,} bytes of JSON"
        print(f"{options.cases} cases, 5 launches of {options.samples} samples: {size}")
        for format_ in ("html", "markdown", "terminal"):
            for language in LANGUAGES:
                begin, began = time.perf_counter(), time.process_time()
                text = render(result, format_, language)
                taken_s, cpu_s = time.perf_counter() - begin, time.process_time() - began
                size = f"{len(text.encode()):>10,} bytes, {len(text):>10,} characters"
                print(f"{format_:9} {language:6} {taken_s:6.2f} s, CPU {cpu_s:6.2f} s {size}")
                large = len(text.encode()) > TARGET_BYTES if format_ == "html" else False
                large |= format_ == "markdown" and len(text) > TARGET_CHARACTERS
                missed += (
                    [f"{format_} {language}"] if large or (format_ == "html" and taken_s > TARGET_S) else []
                )
        begin = time.perf_counter()
        command = [sys.executable, "-m", "perfgate", "report", str(path), "--format", "html"]
        subprocess.run(
            [*command, "-o", f"{folder}/report.html"], env=package_environment(), check=True, timeout=300
        )
        print(f"as a command, reading included: {time.perf_counter() - begin:.2f} s")
    print(f"missed: {', '.join(missed)}" if missed else "all targets met")
    return 1 if missed else 0


OPTIONS = [
    common.option("--cases", type=int, default=500),
    common.option("--samples", type=int, default=1000),
]

if __name__ == "__main__":
    sys.exit(common.main(run, __doc__.partition("\n")[0], OPTIONS))
