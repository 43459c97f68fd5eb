"""Engines that were built before: exported, gated as they are, held to the precision asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from perfgate.engine.export import metadata
from perfgate.measure.launch import EngineTarget
from perfgate.records import EngineFacts, Launch, Measured, Verdict
from perfgate.run import pipeline as pipeline_module
from perfgate.run.outputs import with_outcomes
from perfgate.run.pipeline import Pipeline
from perfgate.settings import load_settings
from perfgate.util.files import file_digest
from perfgate.util.progress import PlainProgress

if TYPE_CHECKING:
    from cli_project import Cli

pytest_plugins = ["cli_project"]

CASE = "tinyconv/fp32/b1"
AXES = {"x": ("b", 3, 64, 64)}


def test_an_engine_that_is_given_is_gated_as_it_is(cli: Cli) -> None:
    shutil.rmtree(cli.root / "baselines")  # whether it is fast is not the question
    done = cli("build", CASE)
    engine = Path(next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("  engine")))
    assert cli("run", "-k", CASE, "--engine", engine).returncode == 0
    (one,) = json.loads(cli.results.read_text())["cases"]
    assert one["outcome"]["engine"]["digest"] == file_digest(engine)
    assert one["outcome"]["engine"]["notes"] == ["built elsewhere"]


def exported(cli: Cli) -> Any:
    """The sidecar of the promoted run's engine."""
    done = cli("export", CASE, "--out", "dist")
    assert done.returncode == 0, done.stderr
    return json.loads((cli.root / "dist/tinyconv.fp32.b1.engine.json").read_text())


def test_the_sidecar_says_what_the_engine_takes_and_gives(cli: Cli) -> None:
    sidecar = exported(cli)
    assert sidecar["schema"] == "perfgate-trt/engine/v2"
    assert sidecar["inputs"] == [{"name": "x", "dtype": "float", "axes": list(AXES["x"])}]
    assert sidecar["outputs"] == ["y"]
    assert "b" in sidecar["profile"] and sidecar["shape"] == {"b": 1}
    assert sidecar["test_data"] == {"x": {"seed": 1}}
    assert metadata(cli.root / "dist/tinyconv.fp32.b1.engine").case == CASE


def test_an_engine_whose_model_has_changed_since_is_not_exported(cli: Cli) -> None:
    exported(cli)  # the engine is in the cache now
    cli.slow_down()
    done = cli("export", CASE, "--out", "dist")
    assert done.returncode == 2 and "not the one that was gated" in done.stderr


def test_a_given_engine_of_another_precision_is_invalid_and_the_graph_names_its_dimensions(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = cli.root / "given.engine"
    engine.write_bytes(b"an engine")
    facts = EngineFacts(digest=file_digest(engine), engine_bytes=9, unmet="FP16 was asked for")
    monkeypatch.setattr(pipeline_module, "prebuilt_engine", lambda _, path, timeout_s: (path, facts))
    monkeypatch.setenv("PERFGATE_LOCK_DIR", str(cli.root))
    flags: dict[str, Any] = {"device": "cpu", "remeasure": True}
    line = Pipeline(load_settings(flags, start=cli.root), PlainProgress(lambda _: None))
    selected = [pair for pair in line.plan([line.settings.path("models")]) if pair[1].id == CASE]
    prepared, pending = line._prepare(selected, facts.digest)
    (job,), known = line._build(pending, prebuilt=engine)
    assert not known
    assert isinstance(job.target, EngineTarget) and job.target.axes == AXES
    launch = Launch(samples_ns=(1000,) * 9, wall_ns=9000, load_ns=1, first_inference_ns=1)
    outcome = Measured(engine=job.engine, launches=(launch,) * 3)
    result = line.judged(with_outcomes(line.result_of(prepared), {CASE: outcome}))
    judgement = result.cases[0].judgement
    assert judgement is not None and judgement.verdict is Verdict.INVALID
    assert "FP16 was asked for" in judgement.reason
