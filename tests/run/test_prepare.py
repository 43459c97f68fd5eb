"""What a case is built with: the timing cache that its model's other cases left."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from perfgate.engine import get_backend
from perfgate.errors import DataError
from perfgate.gate.baselines import Baselines, Stored
from perfgate.measure.environment import fingerprint
from perfgate.measure.launch import EngineTarget
from perfgate.measure.schedule import Job
from perfgate.model.cases import expand
from perfgate.model.read import read_spec
from perfgate.records import BaselineCase, Environment
from perfgate.run.check_accuracy import check_accuracy
from perfgate.run.prepare import Preparation
from perfgate.settings import Settings
from perfgate.util.files import file_digest

MODEL = Path(__file__).resolve().parents[2] / "models/tinyconv.toml"
BACKEND = get_backend("onnxruntime", "cpu")
HERE = fingerprint(BACKEND, "cpu")


def prepared(tmp_path: Path, sibling: str, environment: Environment = HERE) -> tuple[str, str]:
    """The timing cache of tinyconv/fp32/b1, which is not stored, beside a case that is: digest and path."""
    path = tmp_path / "baselines/tinyconv.json"
    timing = path.with_name("tinyconv.fp32.timing")
    timing.parent.mkdir(exist_ok=True)
    timing.write_bytes(b"tactics")
    case = BaselineCase(
        case_digest="ab" * 32,
        usage_digest="ab" * 32,
        environment="e",
        metrics={"latency_ns": (1.0,)},
        promoted="2026-01-01T00:00:00Z",
        reason="x",
        timing_cache=file_digest(timing),
    )
    stored = Stored(case=case, environment=environment, path=str(path))
    # Left behind by a promotion that did not know of it: it names a file that is no more.
    left = msgspec.structs.replace(case, timing_cache="cd" * 32)
    behind = msgspec.structs.replace(stored, case=left)
    settings = Settings(root=str(tmp_path), backend="onnxruntime", device="cpu")
    model, precision, *_ = sibling.split("/")
    baselines = Baselines(root="", cases={f"{model}/{precision}/a": behind, sibling: stored})
    spec = read_spec(MODEL)
    (one, *_) = expand(
        spec, backend=BACKEND.name, default_mode=BACKEND.modes()[0], tolerance=settings.tolerance("cpu")
    )
    result, request = Preparation(settings, BACKEND, HERE, baselines, lambda _: None).one_case(spec, one)
    assert one.id == "tinyconv/fp32/b1" and result.recipe is not None
    assert request.recipe.timing_cache_digest == result.recipe.timing_cache_digest
    return result.recipe.timing_cache_digest, request.timing_cache


def test_a_model_without_dimensions_has_its_own(tmp_path: Path) -> None:
    """Its only case is `model/precision`, and nothing behind it."""
    told, path = prepared(tmp_path, "tinyconv/fp32")
    assert told and path


def test_a_case_that_is_new_beside_others_is_built_with_their_timing_cache(tmp_path: Path) -> None:
    told, path = prepared(tmp_path, "tinyconv/fp32/b8")
    timing = tmp_path / "baselines/tinyconv.fp32.timing"
    assert (told, path) == (file_digest(timing), str(timing))


@pytest.mark.parametrize("sibling", ["tinyconv/fp16/b1", "tinyconv2/fp32/b1"])
def test_but_not_with_that_of_another_precision_or_model(tmp_path: Path, sibling: str) -> None:
    assert prepared(tmp_path, sibling) == ("", "")


def test_nor_with_that_of_another_environment(tmp_path: Path) -> None:
    elsewhere = msgspec.structs.replace(HERE, key={**HERE.key, "cpu": "another"})
    assert prepared(tmp_path, "tinyconv/fp32/b8", elsewhere) == ("", "")


def test_a_timing_cache_that_is_not_the_one_that_is_named_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perfgate.run.prepare.file_digest", lambda path: "ef" * 32)
    with pytest.raises(DataError, match="is not the timing cache that the baseline names"):
        prepared(tmp_path, "tinyconv/fp32/b8")


def test_plugins_are_known_by_digest_and_built_with_by_path_and_have_no_reference(tmp_path: Path) -> None:
    for name in ("tinyconv.toml", "tinyconv.py", "_graph.py"):
        (tmp_path / name).write_bytes((MODEL.parent / name).read_bytes())
    library = tmp_path / "ops.so"
    library.write_bytes(b"a library")
    spec_file = tmp_path / MODEL.name
    spec_file.write_text(f'plugins = ["ops.so"]\n{spec_file.read_text()}')
    settings = Settings(root=str(tmp_path), backend="onnxruntime", device="cpu", remeasure=True)
    spec = read_spec(spec_file)
    cases = expand(
        spec, backend=BACKEND.name, default_mode=BACKEND.modes()[0], tolerance=settings.tolerance("cpu")
    )
    preparation = Preparation(settings, BACKEND, HERE, Baselines(root=""), lambda _: None)
    ((result, pending),) = list(preparation.all_cases([(spec, cases[0])]))
    assert result.recipe is not None and pending is not None
    assert result.recipe.plugins == (file_digest(library),)
    assert pending.request.plugins == (str(library.resolve()),)
    job = Job(
        case_id=result.case.id,
        target=EngineTarget(engine="", case=result.case, folder=""),
        protocol=settings.protocol("cpu"),
    )
    ((_, answered),) = check_accuracy([pending], [job], tmp_path, lambda _: None)
    (note,) = answered.accuracy.notes
    assert note.startswith("not checked: ") and "no operators of the model's plugins" in note
    assert not answered.accuracy.failures
