"""UNCHANGED in somebody else's repository: what a model script reads, and whose files base is made from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from repository import Repository

pytest_plugins = ["cli_project", "repository"]

DEEPER = """
import tinyconv
{imports}
def write_onnx(path, seed):
    tinyconv.write_onnx(path, seed, repeat={repeat})
"""


def case_of(repository: Repository) -> dict[str, Any]:
    table = json.loads(repository.results.read_text())
    found: dict[str, Any] = next(one for one in table["cases"] if one["case"]["id"] == repository.CASE)
    return found


def use_script(repository: Repository, imports: str, repeat: str) -> None:
    """The model is made by a script of this kind, and promoted."""
    script = repository.root / "models/wrapped.py"
    script.write_text(DEEPER.format(imports=imports, repeat=repeat))
    repository.change("models/tinyconv.toml", 'script = "tinyconv.py"', 'script = "wrapped.py"')
    shutil.rmtree(repository.root / "baselines")
    repository.commit("wrapped")
    done = repository("run")
    assert done.returncode == 0, done.stdout + done.stderr
    done = repository("promote", "perfgate-out/results.json", "--reason", "wrapped")
    assert done.returncode == 0, done.stderr
    repository.commit("promoted")
    shutil.rmtree(repository.root / ".perfgate")


def test_the_projects_own_package_counts_and_base_is_made_from_bases_files(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = repository.root / "src/myservice"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text("LAYERS = 1\n")
    monkeypatch.setenv("PYTHONPATH", str(repository.root / "src"))
    use_script(repository, "from myservice.net import LAYERS", "LAYERS")
    done = repository("run", "--require-baseline")
    assert (done.returncode, repository.verdicts()[repository.CASE]) == (0, "UNCHANGED"), done.stderr
    assert not list(repository.root.glob(".perfgate/models/*")), "nothing was generated"
    repository.branch("change")
    (package / "net.py").write_text("LAYERS = 8\n")
    repository.commit("deeper")
    done = repository("run", "--require-baseline", *repository.WIDE)
    assert done.returncode == 1, done.stdout + done.stderr
    assert repository.verdicts()[repository.CASE] == "REGRESSION"
    made = {path.parent.name for path in repository.root.glob(".perfgate/models/*/*/model.onnx")}
    assert len(made) == 2, "base's model and head's"


def test_what_no_commit_holds_is_measured_and_never_held_against_itself(
    repository: Repository, tmp_path: Path
) -> None:
    outside = tmp_path / "layers.txt"
    outside.write_text("1")
    use_script(repository, f"layers = int(open({str(outside)!r}).read())", "layers")
    stored = next(repository.root.glob("baselines/*/*/tinyconv.json"))
    assert json.loads(stored.read_text())["manifests"][0]["open"] == [
        {"code": "outside", "value": str(outside)}
    ]
    done = repository("run")
    assert repository.verdicts()[repository.CASE] == "UNCHANGED", "the graph was generated, and is the same"
    assert f"generated: {outside} lies outside the project" in done.stderr
    shutil.rmtree(repository.root / ".perfgate")
    outside.write_text("8")
    done = repository("run", *repository.WIDE)
    judgement = case_of(repository)["judgement"]
    assert done.returncode != 0, done.stdout
    assert judgement["verdict"] in ("REGRESSION", "INCONCLUSIVE")
    assert "which no commit holds" in json.dumps(judgement)


def test_a_fault_belongs_to_its_model_and_the_others_are_measured_and_promoted(
    repository: Repository,
) -> None:
    repository.add_model("broken")
    repository.change("models/broken.toml", "[source]", "nonsense = 1\n[source]")
    repository.add_model("unfit")
    repository.change("models/unfit.toml", "[dims.b]", "[dims.c]")
    shutil.rmtree(repository.root / "baselines")
    repository.commit("two models that cannot be")
    done = repository("run")
    assert done.returncode == 1
    found = repository.verdicts()
    assert (found["broken"], found["unfit/fp32/c1"]) == ("ERROR", "ERROR")
    assert found[repository.CASE] == "NEW"
    assert "nonsense" in done.stdout and "no dynamic dimension 'c'" in done.stdout
    refused = repository("promote", "perfgate-out/results.json", "--reason", "again")
    assert refused.returncode == 2 and "-k with part of their ids" in refused.stderr
    done = repository("promote", "perfgate-out/results.json", "--reason", "again", "-k", "tinyconv")
    assert done.returncode == 0, done.stderr
    assert repository("run", "-k", "tinyconv").returncode == 0, "what is not selected is not looked at"


def test_a_run_of_nothing_but_a_broken_spec_is_a_mistake_of_configuration(repository: Repository) -> None:
    repository.change("models/tinyconv.toml", "[source]", "nonsense = 1\n[source]")
    done = repository("run")
    assert done.returncode == 2 and "nonsense" in done.stderr


def test_an_input_that_is_one_value_everywhere_is_refused_unless_it_is_asked_for(
    repository: Repository,
) -> None:
    spec = repository.root / "models/tinyconv.toml"
    before, _ = spec.read_text().split("[inputs.x]")
    spec.write_text(f'{before}\n[inputs.x]\ngenerate = "integers"\n')
    done = repository("run", "--remeasure")
    assert done.returncode == 2
    assert "is 0.0 everywhere" in done.stderr and 'generate = "constant", value = 0.0' in done.stderr
    spec.write_text(f'{before}\n[inputs.x]\ngenerate = "constant"\nvalue = 0.0\n')
    shutil.rmtree(repository.root / "baselines")
    assert repository("run").returncode == 0
