"""One fixed run that holds every verdict, every outcome and every optional part of a result."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from perfgate.records import (
    RESULTS_SCHEMA,
    Accuracy,
    Agreement,
    Case,
    CaseResult,
    Commit,
    Confirmation,
    Difference,
    Dimension,
    EngineFacts,
    Environment,
    Explanation,
    Failed,
    GraphChange,
    Interval,
    Judgement,
    Launch,
    LayerChange,
    Measured,
    MetricJudgement,
    Mode,
    NotRun,
    Outcome,
    OutputAccuracy,
    PolicyChange,
    Protocol,
    Recipe,
    RunResult,
    Slo,
    Stages,
    Summary,
    TaskMetric,
    Telemetry,
    Tolerance,
    Unchanged,
    Verdict,
)

DIGEST = "ab" * 32


def launch(median_ns: int, number: int, samples: int = 21, invalid: str = "") -> Launch:
    """A launch whose samples spread by about 1 % around its own median."""
    center = median_ns + number * median_ns // 400
    spread = [center + (index - samples // 2) * center // 1000 for index in range(samples)]
    return Launch(
        samples_ns=tuple(spread),
        wall_ns=sum(spread),
        load_ns=250_000_000 + number,
        first_inference_ns=3 * center,
        peak_memory_bytes=512 << 20,
        telemetry=telemetry(number),
        invalid=invalid,
    )


def telemetry(number: int) -> Telemetry:
    return Telemetry(
        sm_clock_mhz=(1980, 1965 - 15 * number, 1980),
        memory_clock_mhz=(2619, 2619, 2619),
        power_mw=(312_000, 405_000 + 1_000 * number, 398_000),
        temperature_c=(41, 46, 47),
        energy_mj=402_000,
        slowdowns=("sw_power_cap",) if number == 4 else (),
        violations_ns={"power": 12_000_000 if number == 4 else 0},
        peak_used_bytes=1_900 << 20,
        unavailable={"ecc_corrected": "not supported by this device"},
    )


def explanation() -> Explanation:
    """A convolution that lost its activation, with the graph's change behind it."""
    return Explanation(
        kind="un-fused",
        cause="conv1 + relu came apart into conv1 and a Pow, which takes 83 % of the slowdown.",
        state_ratio=1.002,
        profiled_base_ns=2_150_000.0,
        profiled_head_ns=2_410_000.0,
        gated_base_ns=2_064_000.0,
        gated_head_ns=2_319_000.0,
        unexplained_ns=21_000.0,
        matched_share=0.97,
        layers=(
            LayerChange(
                kind="slower", base_layers=("fc",), head_layers=("fc",), base_ns=8e4, head_ns=9e4, share=0.04
            ),
            LayerChange(
                kind="un-fused",
                base_layers=("conv1 + relu",),
                head_layers=("conv1", "PWN(pow)"),
                onnx_nodes=("/stem/conv1", "/stem/Pow"),
                base_ns=310_000.0,
                head_ns=526_000.0,
                spread_ns=2_000.0,
                share=0.83,
                detail="a Pow after the convolution keeps it from taking the activation in",
            ),
            LayerChange(
                kind="appeared", head_layers=("Reformatting CopyNode",), head_ns=24_000.0, share=0.09
            ),
        ),
        graph=(GraphChange(kind="added", node="/stem/Pow", what="Pow between /stem/conv1 and /stem/relu"),),
        differences=(Difference(field="driver", base="535.161.08", head="535.183.01"),),
        unseen=("the launch gaps between layers",),
    )


def accuracy() -> Accuracy:
    return Accuracy(
        reference="ONNX Runtime 1.23.2, fp32, 64 inputs",
        outputs=(
            OutputAccuracy(
                output="logits",
                max_abs_error=0.0312,
                max_rel_error=0.0021,
                cosine=0.999993,
                sqnr_db=41.7,
                top1=Agreement(right=63, total=64),
                top5=Agreement(right=64, total=64),
            ),
            OutputAccuracy(output="features", nonfinite=2, first_nonfinite="[0, 17]", sqnr_db=12.0),
        ),
        task=TaskMetric(name="top-1 accuracy", reference=0.761, head=0.7607, samples=10_000),
        failures=("features has 2 numbers that are not finite",),
        notes=("inputs are the spec's own, seed 1",),
    )


def further_metrics() -> tuple[MetricJudgement, ...]:
    return (
        MetricJudgement(
            metric="throughput_qps",
            verdict=Verdict.REGRESSION,
            reason="10.9 % less, beyond the 2 % to catch",
            ratio=Interval(estimate=0.891, low=0.88, high=0.902, confidence=0.95),
            base=484.2,
            head=431.4,
        ),
        MetricJudgement(
            metric="engine_bytes", verdict=Verdict.PASS, reason="", base=51_200_000.0, head=51_300_000.0
        ),
        MetricJudgement(
            metric="build_ns",
            verdict=Verdict.PASS,
            reason="never fails a build",
            base=11.0e9,
            head=45.2e9,
            advisory=True,
        ),
    )


def confirmation() -> Confirmation:
    return Confirmation(
        base_launches=12,
        head_launches=12,
        decided=True,
        log_likelihood=9.31,
        gpu_ns=96_000_000_000,
        base_commit="89abcdef0123",
        notes=("6 blocks, ABBA and BAAB drawn at random",),
    )


def case(model: str, precision: Any = "fp16", batch: int = 8) -> Case:
    return Case(
        id=f"{model}/{precision}/b{batch}",
        model=model,
        backend="tensorrt",
        precision=precision,
        shape={"b": batch},
        mode=Mode(drive="graph", wait="spin"),
        tolerance=Tolerance(ignore=0.005, catch=0.02),
        slo=Slo(engine_p99_ms=4.0),
        source=f"models/{model}.toml",
    )


def measured(median_ns: int, launches: int = 5) -> Measured:
    engine = EngineFacts(
        digest=DIGEST,
        engine_bytes=51_300_000,
        build_ns=45_200_000_000,
        layers=57,
        precision_share={"fp16": 0.93, "fp32": 0.07},
        device_memory_bytes=33 << 20,
        notes=("timing cache took 12 new entries",),
    )
    return Measured(engine=engine, launches=tuple(launch(median_ns, n) for n in range(launches)))


def judged(verdict: Verdict, reason: str, base_ns: int, head_ns: int, **more: Any) -> Judgement:
    base = [launch(base_ns, n) for n in range(5)]
    head = [launch(head_ns, n) for n in range(5)] if head_ns else []
    ratio = head_ns / base_ns
    shift = Interval(estimate=ratio, low=ratio - 0.012, high=ratio + 0.012, confidence=0.95)
    return Judgement(
        verdict=verdict,
        reason=reason,
        ratio=shift if head_ns else None,
        base={
            "latency_ns": tuple(x.median_ns for x in base),
            "p99_ns": tuple(x.percentile_ns(99) for x in base),
            "peak_memory_bytes": (500 << 20,) * 5,
        },
        head={
            "latency_ns": tuple(x.median_ns for x in head),
            "p99_ns": tuple(x.percentile_ns(99) for x in head),
        },
        **more,
    )


def result(
    model: str, outcome: Outcome, judgement: Judgement | None, batch: int = 8, **more: Any
) -> CaseResult:
    recipe = Recipe(
        backend="tensorrt",
        onnx_digest=DIGEST,
        precision="fp16",
        profile={"b": Dimension(min=1, opt=8, max=16)},
        versions={"tensorrt": "8.5.3.1", "onnx": "1.17.0"},
    )
    return CaseResult(
        case=case(model, batch=batch),
        outcome=outcome,
        case_digest=DIGEST,
        recipe=recipe,
        judgement=judgement,
        **more,
    )


def every_verdict() -> tuple[CaseResult, ...]:
    differences = (
        Difference(
            field="layer conv1 + relu", base="sm90_xmma_fprop_implicit_gemm_f16", head="cask_conv_f32"
        ),
        Difference(field="layers", base="56", head="57"),
    )
    return (
        result("vgg", measured(1_500_000), judged(Verdict.PASS, "under catch", 1_500_000, 1_503_000)),
        result("bert", Unchanged(), judged(Verdict.UNCHANGED, "same case digest", 5_120_000, 0)),
        result(
            "resnet50",
            msgspec.structs.replace(
                measured(2_307_000), base_launches=tuple(launch(2_054_000, n) for n in range(5))
            ),
            judged(
                Verdict.REGRESSION,
                "confirmed in 6 blocks; layer conv1 lost FP16",
                2_054_000,
                2_307_000,
                differences=differences,
                metrics=further_metrics(),
                confirmation=confirmation(),
            ),
            explanation=explanation(),
            accuracy=accuracy(),
            stages=Stages(
                export_ns=2_100_000_000,
                conversion_ns=4_300_000_000,
                verification_ns=900_000_000,
                cached=("export", "conversion", "reference"),
                unknown=("reference",),
            ),
        ),
        result(
            "unet",
            measured(9_300_000),
            judged(Verdict.REGRESSION, "confirmed in 9 blocks", 9_000_000, 9_300_000),
        ),
        result("yolo", measured(6_300_000), judged(Verdict.IMPROVEMENT, "confirmed", 7_000_000, 6_300_000)),
        result("swin", measured(65_432), Judgement(verdict=Verdict.NEW, reason="no baseline yet")),
        result(
            "dlrm", measured(814_000), judged(Verdict.WAIVED, "waived until 2026-12-01", 740_000, 814_000)
        ),
        result(
            "gpt2", Failed(stage="missing", reason="did not run"), judged(Verdict.MISSING, "gone", 9_000, 0)
        ),
        result(
            "vit",
            measured(41_000),
            judged(Verdict.INCONCLUSIVE, "out of budget after 20 blocks", 40_000, 41_000),
        ),
        result(
            "detr",
            Failed(
                stage="build",
                reason="the parser refused node 17",
                stderr_tail="[E] ModelImporter.cpp:726\nERROR: Unsupported op: Einsum",
            ),
            Judgement(verdict=Verdict.ERROR, reason="build failed"),
        ),
        result(
            "lstm",
            Measured(engine=None, launches=(launch(80_000, 1, invalid="thermal slowdown"),)),
            Judgement(verdict=Verdict.INVALID, reason="thermal slowdown in 5 of 5 launches"),
        ),
        result("ssd", measured(300_000), Judgement(verdict=Verdict.INCOMPARABLE, reason="another driver")),
        result("asr", NotRun(reason="no device with 80 GiB"), None),
        result("tts", NotRun(reason="no device with 80 GiB"), None),
        result("ocr", NotRun(reason="deselected"), Judgement(verdict=Verdict.NOT_RUN, reason="deselected")),
    )


@pytest.fixture
def run() -> RunResult:
    """All verdicts at once."""
    return make_run(every_verdict())


def make_run(cases: tuple[CaseResult, ...], *, judge: bool = True) -> RunResult:
    summary = Summary(
        verdict=Verdict.REGRESSION,
        exit_code=1,
        sentence="2 of 12 cases are slower than their baseline; the worst by 12.3 %.",
        counts={"REGRESSION": 2, "PASS": 1, "IMPROVEMENT": 0, "ERROR": 1},
        next_steps=(
            "perfgate explain resnet50/fp16/b8",
            "If the slowdown is meant: `perfgate promote resnet50/fp16/b8 --reason WHY`",
        ),
    )
    return RunResult(
        schema=RESULTS_SCHEMA,
        run_id="20261114-101500-1f2e",
        created="2026-11-14T10:15:00+00:00",
        perfgate="0.1.0",
        commit=Commit(sha="0123456789abcdef0123456789abcdef01234567", dirty=True, subject="Fuse the stem"),
        base=Commit(sha="89abcdef0123456789abcdef0123456789abcdef", subject="Pin the toolchain"),
        policy_changes=(
            PolicyChange(where="models/resnet50.toml: catch", base="0.02", head="0.2"),
            PolicyChange(where="models/vit.toml: slo.engine_p99_ms", base="", head="5.0"),
        ),
        environment=Environment(
            device="NVIDIA-H200",
            toolchain="trt8.5.3-cuda11.8",
            key={
                "driver": "535.161.08",
                "cuda": "11.8",
                "cpu": "Xeon 8480+",
                "python": "3.10.12",
                "image": "sha256:7d1c",
            },
            noted={"gpu_uuid": "GPU-7d1c", "host": "bench-3"},
        ),
        protocol=Protocol(),
        cases=cases,
        summary=summary if judge else None,
    )


@pytest.fixture
def unjudged() -> RunResult:
    """A run that was measured and not compared."""
    cases = (
        CaseResult(case=case("vgg"), outcome=measured(1_500_000)),
        CaseResult(case=case("bad"), outcome=Failed(stage="launch", reason="exit status 139")),
        CaseResult(case=case("gone"), outcome=Failed(stage="missing", reason="not in the tree")),
        CaseResult(case=case("off"), outcome=NotRun(reason="deselected")),
    )
    return make_run(cases, judge=False)


@pytest.fixture
def many() -> RunResult:
    """500 measured cases with their evidence."""
    verdicts = [Verdict.PASS] * 7 + [Verdict.REGRESSION, Verdict.IMPROVEMENT, Verdict.INCONCLUSIVE]
    cases = tuple(
        result(
            f"model-{n}",
            measured(2_000_000 + n),
            judged(verdicts[n % 10], "why", 2_000_000, 2_000_000 + 40 * n),
        )
        for n in range(500)
    )
    return make_run(cases)
