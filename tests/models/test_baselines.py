"""The baselines of this repository say truly what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfgate.gate.baselines import read_baseline
from perfgate.model.onnx_file import export_onnx
from perfgate.model.read import read_spec
from perfgate.model.sources import Sources
from perfgate.util.files import file_digest

ROOT = Path(__file__).resolve().parents[2]
BASELINES = sorted((ROOT / "baselines").glob("*/*/*.json"))


@pytest.mark.parametrize("path", BASELINES, ids=lambda path: path.stem)
def test_a_baselines_manifests_are_closed_and_of_todays_scripts(path: Path) -> None:
    baseline = read_baseline(path)
    (manifest,) = baseline.manifests
    assert manifest.closed
    assert {case.onnx_digest for case in baseline.cases.values()} == {manifest.made}
    read = {
        name: value.removeprefix("sha256:")
        for name, value in manifest.reads.items()
        if value.startswith("sha256:")
    }
    assert f"models/{path.stem}.py" in read
    assert {name: file_digest(ROOT / name) for name in read} == read


def test_a_model_that_is_made_here_has_the_graph_digest_of_its_baseline(tmp_path: Path) -> None:
    (path,) = (path for path in BASELINES if path.stem == "tinyconv")
    found = export_onnx(read_spec(ROOT / "models/tinyconv.toml"), Sources(tmp_path))
    assert found.manifest is not None and found.manifest.closed
    assert {case.onnx_digest for case in read_baseline(path).cases.values()} == {found.graph.onnx_digest}
