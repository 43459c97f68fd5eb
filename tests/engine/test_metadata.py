"""`perfgate.metadata`: an engine's sidecar, checked against its bytes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import perfgate
from perfgate.engine.export import SIDECAR_SCHEMA, Sidecar, metadata
from perfgate.errors import DataError
from perfgate.model.graph import GraphInput
from perfgate.records import Commit, Dimension, Verdict
from perfgate.util.files import record_json

BYTES = b"not an engine: nothing parses it"


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "resnet50.fp16.b8.engine"
    path.write_bytes(BYTES)
    sidecar = Sidecar(
        schema=SIDECAR_SCHEMA,
        case="resnet50/fp16/b8",
        engine=path.name,
        engine_digest=hashlib.sha256(BYTES).hexdigest(),
        engine_bytes=len(BYTES),
        verdict=Verdict.PASS,
        precision_asked="fp16",
        precision_realised={"fp16": 0.9, "fp32": 0.1},
        inputs=(GraphInput(name="x", dtype="float", axes=("b", 3, 224, 224)),),
        outputs=("logits",),
        shape={"b": 8},
        profile={"b": Dimension(min=1, opt=8, max=16)},
        mode="graph, no transfers, block",
        versions={"tensorrt": "8.5.3.1"},
        device="NVIDIA H200",
        environment={},
        onnx_digest="a" * 64,
        recipe_digest="b" * 64,
        case_digest="c" * 64,
        commit=Commit(sha="0123456789abcdef" * 2 + "01234567", dirty=True),
        run_id="run-1",
        created="2026-11-22T02:00:00Z",
    )
    path.with_name(f"{path.name}.json").write_text(record_json(sidecar))
    return path


def edit(engine: Path, **changes: Any) -> None:
    beside = engine.with_name(f"{engine.name}.json")
    beside.write_text(json.dumps({**json.loads(beside.read_text()), **changes}))


def test_what_a_service_exposes(engine: Path) -> None:
    found = metadata(engine)
    assert found.version == "0123456789ab+dirty"
    assert found.precision_realised == {"fp16": 0.9, "fp32": 0.1}
    assert found.profile["b"].max == 16
    assert found.verdict is Verdict.PASS
    assert found.labels()["shape"] == "b=8"
    assert found.labels()["engine_digest"] == hashlib.sha256(BYTES).hexdigest()
    with pytest.raises(AttributeError):
        found.version = "2"  # type: ignore[misc]


def test_the_package_has_the_function_too(engine: Path) -> None:
    assert perfgate.metadata(str(engine)) == metadata(engine)  # type: ignore[operator]


def test_without_a_commit_the_engine_names_itself(engine: Path) -> None:
    edit(engine, commit={})
    assert metadata(engine).version == f"engine-{hashlib.sha256(BYTES).hexdigest()[:12]}"


@pytest.mark.parametrize("data", [BYTES + b"!", b"N" + BYTES[1:]], ids=["longer", "other"])
def test_another_engine_is_refused(engine: Path, data: bytes) -> None:
    engine.write_bytes(data)
    with pytest.raises(DataError, match="another engine"):
        metadata(engine)


@pytest.mark.parametrize(
    "changes",
    [{"schema": "perfgate-trt/engine/v3"}, {"surprise": 1}, {"verdict": "FINE"}, {"engine_bytes": "many"}],
    ids=str,
)
def test_a_damaged_sidecar_is_refused(engine: Path, changes: dict[str, Any]) -> None:
    edit(engine, **changes)
    with pytest.raises(DataError, match="Sidecar"):
        metadata(engine)


def test_a_sidecar_of_the_first_version_is_read_as_ever(engine: Path) -> None:
    edit(engine, schema="perfgate-trt/engine/v1", inputs={"x": {"seed": 1}})
    assert metadata(engine).case == "resnet50/fp16/b8"


def test_missing_files(engine: Path) -> None:
    engine.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        metadata(engine)
    with pytest.raises(DataError, match="cannot be read"):
        metadata(engine.with_name("other.engine"))


def test_no_gpu_library_is_imported() -> None:
    code = "import sys, perfgate; perfgate.metadata\n"
    code += "print({'tensorrt', 'pycuda', 'torch', 'onnx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
