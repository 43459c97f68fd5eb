"""`perfgate aa` and `perfgate power` from the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli_project import Cli

pytest_plugins = ["cli_project"]


def test_aa_launches_an_engine_against_itself_and_its_rebuilds(cli: Cli) -> None:
    done = cli("aa", "tinyconv/fp32/b1", "--minutes", "0", "--rebuilds", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["launches"] == 8
    assert found["alike"]["gates"] + found["alike"]["undecided"] <= 1
    assert len(found["rebuilds"]) == 1
    assert found["rebuilds"][0]["same_bytes"] is True, "ONNX Runtime optimises alike every time"
    assert found["power"]["launch_cv"] > 0
    assert list((cli.root / ".perfgate").glob("aa-*")) == []
    unknown = cli("aa", "no/such/case")
    assert unknown.returncode == 2


def test_power_answers_for_stored_launches_and_measures_nothing(cli: Cli) -> None:
    done = cli("power", "-k", "fp32", "--catch", "0.5")
    assert done.returncode == 0, done.stderr
    assert "tinyconv/fp32/b1 (cpu-" in done.stdout
    assert "+50.0% caught in " in done.stdout
    assert not (cli.root / ".perfgate").exists()
    none = cli("power", "-k", "no such")
    assert none.returncode == 2
    assert "no stored case" in none.stderr
