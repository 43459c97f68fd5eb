"""A bundle: whole, the same twice, runnable elsewhere, and with nothing private in it."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest

from perfgate.engine.tensorrt.inspect import Layer, Layers, pack_layers
from perfgate.errors import RefusedError
from perfgate.gate.explain.bundle import Bundle, Model
from perfgate.model.graph import GraphInput
from perfgate.records import (
    RESULTS_SCHEMA,
    Case,
    CaseResult,
    Commit,
    Dimension,
    EngineFacts,
    Environment,
    Explanation,
    Judgement,
    Launch,
    LayerChange,
    Measured,
    Mode,
    Protocol,
    Recipe,
    RunResult,
    Telemetry,
    Tolerance,
    Verdict,
)
from perfgate.util.redact import Scrubber

SECRETS = {
    "GITHUB_TOKEN": "ghp_A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6",
    "DEPLOY_PASSWORD": "hunter2",
    "SLACK_WEBHOOK": "https://hooks.slack.com/services/T000/B000/XXXXXXXX",
    "CI_RUNNER_LABEL": "a-very-private-label",
}
HOST = "gpu-box-17"
HOME = Path("/home/ada")
PLANTED = [
    *SECRETS.values(),
    HOST,
    str(HOME),
    "/home/ada/projects/secret-model",
    "/mnt/nas/models",
    "AKIAABCDEFGHIJKLMNOP",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdefgh",
    "ada@example.org",
    "GPU-12345678-1234-1234-1234-123456789abc",
    "https://bob:letmein@git.example.org",
    "http://10.11.12.13/x",
    "10.11.12.14:8080",
    "192.168.7.13",
    "/scratch/ada/run-7",
]


def recipe(version: str) -> Recipe:
    return Recipe(
        backend="tensorrt",
        onnx_digest="1" * 64,
        precision="fp16",
        typing="weak",
        profile={"b": Dimension(min=1, opt=8, max=32)},
        versions={"tensorrt": version},
    )


def facts(name: str) -> EngineFacts:
    layer = Layer(name=name, type="CaskConvolution", tactic="sm90", onnx_nodes=(name,))
    return EngineFacts(
        digest=hashlib.sha256(name.encode()).hexdigest(),
        engine_bytes=1000,
        layer_record=pack_layers(Layers(detailed=True, layers=(layer,))),
        notes=tuple(f"found {planted} there" for planted in PLANTED),
    )


def run_result() -> RunResult:
    text = " ".join(PLANTED)
    launch = Launch(
        samples_ns=(1000, 1001),
        wall_ns=2001,
        load_ns=1,
        first_inference_ns=1,
        telemetry=Telemetry(sm_clock_mhz=(1980,), foreign_pids=(4242,), unavailable={"x": text}),
    )
    case = Case(
        id="net/fp16/b8",
        model="net",
        backend="tensorrt",
        precision="fp16",
        shape={"b": 8},
        mode=Mode(drive="graph", wait="spin"),
        tolerance=Tolerance(ignore=0.005, catch=0.02),
        source="models/net.toml",
    )
    outcome = Measured(engine=facts("head-layer"), launches=(launch,), base_launches=(launch,))
    explained = Explanation(
        kind="un-fused",
        cause=f"un-fused: `a` became 2 layers {text}",
        layers=(LayerChange(kind="un-fused", base_layers=("a",), head_layers=("a1", "a2")),),
        base_engine=facts("base-layer"),
        base_recipe=recipe("8.5.3.1"),
    )
    result = CaseResult(
        case=case,
        outcome=outcome,
        recipe=recipe("10.9.0"),
        judgement=Judgement(verdict=Verdict.REGRESSION, reason=f"slower; {text}"),
        explanation=explained,
    )
    noted = {
        "uuid": "GPU-12345678-1234-1234-1234-123456789abc",
        "kernel": "6.1",
        "path": "/home/ada/x",
        "hostname": HOST,
    }
    return RunResult(
        schema=RESULTS_SCHEMA,
        run_id="r1",
        created="2026-11-24T00:00:00Z",
        perfgate="0.1.0",
        commit=Commit(sha="a" * 40, subject=text),
        environment=Environment(device="d", toolchain="t", key={"driver": "580"}, noted=noted),
        protocol=Protocol(),
        base=Commit(sha="b" * 40),
        cases=(result,),
    )


GENERATOR = b"""def write_onnx(path, seed, width=1):
    open(path, "wb").write(b"model %d %d" % (seed, width))
"""
MADE = hashlib.sha256(b"model 3 2").hexdigest()


def model(**files: bytes) -> Model:
    return Model(
        inputs=(GraphInput(name="x", dtype="float", axes=("b", 4)),),
        file_digest=MADE,
        script="net.py",
        seed=3,
        args={"width": 2},
        files={"net.py": GENERATOR, **files},
    )


def scrubber() -> Scrubber:
    return Scrubber([HOME, Path("/scratch/ada")], environ=SECRETS, hostname=HOST)


def bundle(models: dict[str, Model] | None = None, **options: bool) -> zipfile.ZipFile:
    run = run_result()
    chosen = {"base": model(), "head": model()} if models is None else models
    return zipfile.ZipFile(io.BytesIO(Bundle(run, run.cases[0], chosen, scrubber()).zipped(**options)))


def text_of(archive: zipfile.ZipFile, name: str) -> str:
    return archive.read(f"perfgate-bundle/{name}").decode()


def test_nothing_private_is_in_it() -> None:
    archive = bundle()
    for name in archive.namelist():
        data = archive.read(name).decode()
        for planted in (*PLANTED, "secret-model", "letmein", "10.11.12.13", "run-7"):
            assert planted not in data, (name, planted)
        assert "4242" not in data, name
    assert "hostname" not in text_of(archive, "environment.json")
    assert "uuid" not in text_of(archive, "environment.json").lower().replace("<uuid>", "")


def test_both_sides_have_their_own_command_for_their_own_tensorrt() -> None:
    archive = bundle()
    base, head = text_of(archive, "base/trtexec.sh"), text_of(archive, "head/trtexec.sh")
    assert "--onnx=base.onnx" in base
    assert "--useCudaGraph" in base and "--tacticSources=-CUDNN" in base
    assert "--onnx=head.onnx" in head and "tacticSources" not in head
    for text in (base, head):
        assert "--fp16" in text
        assert "--shapes=x:8x4" in text
        subprocess.run(["sh", "-n"], input=text, text=True, check=True, timeout=10)


def test_what_is_in_it() -> None:
    archive = bundle()
    names = {name.removeprefix("perfgate-bundle/") for name in archive.namelist()}
    both = ("recipe.json", "engine.json", "layers.json", "launches.json", "trtexec.sh", "generate.py")
    assert names == {
        "README.md", "case.json", "judgement.json", "explanation.json", "environment.json",
        *(f"{side}/{name}" for side in ("base", "head") for name in (*both, "generator/net.py")),
    }  # fmt: skip
    assert json.loads(text_of(archive, "head/layers.json"))["layers"][0]["name"] == "head-layer"
    assert json.loads(text_of(archive, "base/launches.json"))["launches"][0]["samples_ns"] == [1000, 1001]
    readme = text_of(archive, "README.md")
    assert f"ONNX graph digest `{'1' * 64}`" in readme
    assert f"ONNX file SHA-256 `{MADE}`" in readme
    assert "REGRESSION" in readme and "un-fused" in readme and "1" * 64 in readme


def test_the_same_run_makes_the_same_bytes() -> None:
    run = run_result()
    made = [Bundle(run, run.cases[0], {"head": model()}, scrubber()).zipped() for _ in range(2)]
    assert made[0] == made[1]


def test_the_generator_runs_elsewhere(tmp_path: Path) -> None:
    bundle().extractall(tmp_path)
    side = tmp_path / "perfgate-bundle" / "head"
    command = [sys.executable, "-I", "-B", "generate.py"]  # no stale bytecode of the first run
    done = subprocess.run(command, cwd=side, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256((side / "head.onnx").read_bytes()).hexdigest() == MADE
    (side / "generator" / "net.py").write_bytes(GENERATOR.replace(b"model", b"other"))
    done = subprocess.run(command, cwd=side, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "not the file that was measured" in done.stderr


def test_a_generator_with_a_secret_is_left_out_and_said_so() -> None:
    archive = bundle({"head": model(**{"data.py": b"KEY = 'hunter2'\n"})})
    names = archive.namelist()
    assert not any("generator" in name or name.endswith("generate.py") for name in names)
    assert "Left out" in text_of(archive, "README.md")


def test_weights_only_when_asked_for(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", value[:1], value[1:])
    net = helper.make_model(graph)
    file = tmp_path / "net.onnx"
    onnx.save(net, str(file))
    head = msgspec.structs.replace(model(), onnx=str(file))
    assert not any(name.endswith(".onnx") for name in bundle({"head": head}).namelist())
    archive = bundle({"head": head}, include_weights=True)
    assert archive.read("perfgate-bundle/head/head.onnx") == file.read_bytes()
    net.doc_string = "exported from /home/ada/projects"
    onnx.save(net, str(file))
    with pytest.raises(RefusedError, match="--include-weights"):
        bundle({"head": head}, include_weights=True)


@pytest.mark.parametrize(
    "text", ["layer1.0.conv1 + relu", "8.5.3.1", "10.9.0", "a/b/c", "CUDA 12.4", "x:1x3x224x224"]
)
def test_what_is_not_private_stays(text: str) -> None:
    assert scrubber()(text) == text
