"""Shares of a run: more of them than there are cases, put together again, and a run that is empty."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli_project import Cli

pytest_plugins = ["cli_project"]


def test_more_shards_than_cases_are_whole_together_and_an_empty_run_stays_red(cli: Cli) -> None:
    count = len(cli.verdicts()) + 1
    for number in range(1, count + 1):
        done = cli("run", "--leg", "cpu", "--shard", f"{number}/{count}", "--out", f"shards/{number}")
        assert done.returncode == 0, done.stdout + done.stderr
    assert f"share {count}/{count} of {count - 1} cases has none that runs" in done.stdout
    last = json.loads((cli.root / f"shards/{count}/results.json").read_text())
    assert "cases" not in last
    assert len(last["scope"]["plan"]) == count - 1
    assert (last["scope"]["shard"], last["scope"]["shards"]) == (count, count)
    whole = cli("merge", "shards", "--expect", "cpu", "--out", "merged")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    (cli.root / f"shards/{count}/results.json").unlink()
    assert cli("merge", "shards", "--expect", "cpu", "--out", "merged").returncode == 3

    (cli.root / "models/tinyconv.toml").unlink()
    for path in cli.root.glob("baselines/*/*/*"):
        path.unlink()
    assert cli("run", "--leg", "cpu", "--shard", "1/2").returncode != 0
    assert cli("run").returncode != 0
