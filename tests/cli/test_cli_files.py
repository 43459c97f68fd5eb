"""The commands around a results file: help, compare, promote, report, doctor, schema, and damaged input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from perfgate.cli.app import cli as command_line

if TYPE_CHECKING:
    from cli_project import Cli

pytest_plugins = ["cli_project"]

COMMANDS = tuple(command_line.commands)
FORMATS = ("terminal", "markdown", "html", "json", "pytest-benchmark")
READERS: dict[str, Callable[[Path, Path], tuple[str | Path, ...]]] = {
    "report": lambda path, good: ("report", path),
    "compare, base": lambda path, good: ("compare", path, good),
    "compare, head": lambda path, good: ("compare", good, path),
    "promote": lambda path, good: ("promote", path, "--reason", "why not"),
}


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=" ".join)
def test_help_of_every_command(cli: Cli, command: tuple[str, ...]) -> None:
    done = cli(*command, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    if not command:
        assert all(f" {name} " in done.stdout for name in COMMANDS)


def test_help_imports_nothing_that_it_does_not_show() -> None:
    """What makes `--help` slow is imports; how long it takes is `tests/benchmarks/help_speed.py`'s to say."""
    code = (
        "import sys; from perfgate.cli.app import main\n"
        "try:\n    main()\n"
        "finally:\n    print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    needed = {"perfgate", "click", "rich", "rich_click", "msgspec", "typing_extensions"}
    ours = set(done.stderr.split()) - set(sys.stdlib_module_names)
    started_with = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert ours - {name.split(".")[0] for name in started_with.stdout.split()} <= needed


@pytest.mark.parametrize(
    "args", [("frob",), ("run", "--frob"), ("run", "--launches", "x"), ("report",), ("promote", "x")]
)
def test_a_wrong_command_line_is_a_usage_error(cli: Cli, args: tuple[str, ...]) -> None:
    assert cli(*args).returncode == 2


def test_version(cli: Cli) -> None:
    done = cli("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("perfgate, version ")


def test_compare_with_itself_passes(cli: Cli) -> None:
    table = json.loads(cli.results.read_text())
    for case in table["cases"]:
        launches = case["outcome"].get("launches", [])
        for launch in launches:  # a quiet machine: launches that differ could honestly be INCONCLUSIVE
            launch["samples_ns"] = launches[0]["samples_ns"]
    quiet = _written(cli, "quiet.json", table)
    done = cli("compare", quiet, quiet)
    assert done.returncode == 0
    assert "PASS" in done.stdout


def test_compare_tells_a_regression_a_missing_case_and_another_machine(cli: Cli) -> None:
    table = json.loads(cli.results.read_text())
    case = next(one for one in table["cases"] if one["outcome"]["type"] == "measured")
    for launch in case["outcome"]["launches"]:
        launch["samples_ns"] = [3 * sample for sample in launch["samples_ns"]]
    slower = _written(cli, "slower.json", table)
    done = cli("compare", cli.results, slower)
    assert done.returncode == 1
    assert "REGRESSION  tinyconv/fp32/b1" in done.stdout
    assert cli("compare", slower, cli.results).returncode == 0
    table["environment"]["key"]["cpus"] = "999"
    assert cli("compare", cli.results, _written(cli, "foreign.json", table)).returncode == 3
    table["cases"].remove(case)
    done = cli("compare", cli.results, _written(cli, "fewer.json", table))
    assert done.returncode == 1
    assert "MISSING" in done.stdout


def test_promoting_nothing_or_without_a_reason_is_refused(cli: Cli) -> None:
    assert cli("promote", cli.results, "--reason", " ").returncode == 2
    assert cli("promote", cli.results).returncode == 2
    assert cli("promote", cli.results, "--reason", "x", "--accept", "no/such/case").returncode == 2
    assert cli("run").returncode == 0
    done = cli("promote", cli.results, "--reason", "x")
    assert done.returncode == 2
    assert "holds no measured case" in done.stderr


def test_some_cases_of_a_run_are_promoted_whatever_became_of_the_others(cli: Cli) -> None:
    table = json.loads(cli.results.read_text())
    wrong = json.loads(json.dumps(table["cases"][0]))
    wrong["case"]["id"] = "tinyconv/fp32/b9"
    wrong["judgement"]["verdict"] = "ERROR"
    path = _written(cli, "two.json", {**table, "cases": [*table["cases"], wrong]})
    args = ("promote", path, "--reason", "x", "--baselines", "fresh")
    refused = cli(*args)
    assert refused.returncode == 2 and "tinyconv/fp32/b9 is ERROR" in refused.stderr
    none = cli(*args, "-k", "resnet")
    assert none.returncode == 2 and "selects no case" in none.stderr
    assert not (cli.root / "fresh").exists()
    done = cli(*args, "-k", "/b1")
    assert done.returncode == 0, done.stderr
    (stored,) = (cli.root / "fresh").rglob("*.json")
    assert list(json.loads(stored.read_text())["cases"]) == ["tinyconv/fp32/b1"]
    both = cli("promote", path, cli.results, "--reason", "x", "--baselines", "fresh", "-k", "/b9")
    assert both.returncode == 2 and f"selects no case of {cli.results}" in both.stderr.replace("\n", " ")


def test_promoting_into_a_folder_that_cannot_be_is_one_clear_line(cli: Cli) -> None:
    (cli.root / "taken").write_text("a file")
    done = cli("promote", cli.results, "--reason", "x", "--baselines", "taken/baselines")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


@pytest.mark.parametrize("kind", FORMATS)
def test_a_report_is_printed_and_written_in_every_format(cli: Cli, kind: str) -> None:
    printed = cli("report", cli.results, "--format", kind)
    assert printed.returncode == 0
    assert "tinyconv/fp32/b1" in printed.stdout
    done = cli("report", cli.results, "--format", kind, "-o", "new/report")
    assert done.returncode == 0
    text = (cli.root / "new/report").read_text()
    assert "tinyconv/fp32/b1" in text
    if kind in ("json", "pytest-benchmark"):
        json.loads(text)


def test_a_report_that_cannot_be_written_is_one_clear_line(cli: Cli) -> None:
    done = cli("report", cli.results, "-o", cli.results / "report.md")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "fix: choose a place that can be written to" in done.stderr, "report has no --out"


def _truncated(path: Path, good: str) -> None:
    path.write_text(good[: len(good) // 2])


def _nan(path: Path, good: str) -> None:
    table = json.loads(good)
    table["summary"]["counts"]["NEW"] = float("nan")
    path.write_text(json.dumps(table))


def _oversized(path: Path, good: str) -> None:
    path.write_text(good)
    with path.open("r+b") as sink:
        sink.truncate((64 << 20) + 1)


DAMAGE: dict[str, tuple[Callable[[Path, str], object], str]] = {
    "missing": (lambda path, good: None, "cannot be read"),
    "a folder": (lambda path, good: path.mkdir(), "cannot be read"),
    "empty": (lambda path, good: path.write_text(""), "is not a valid RunResult"),
    "truncated": (_truncated, "is not a valid RunResult"),
    "not text": (lambda path, good: path.write_bytes(b"\xff\xfe\x00"), "is not a valid RunResult"),
    "NaN": (_nan, "is not a valid RunResult"),
    "unknown key": (lambda path, good: path.write_text('{"frob": 1,' + good[1:]), "unknown field `frob`"),
    "another schema": (
        lambda path, good: path.write_text(good.replace("results/v1", "results/v9")),
        "results/v9",
    ),
    "too deep": (lambda path, good: path.write_text("[" * 100_000), "is not a valid RunResult"),
    "oversized": (_oversized, "is larger than 64 MiB"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_results_file_is_one_clear_line(cli: Cli, damage: str) -> None:
    make, said = DAMAGE[damage]
    bad = cli.root / "bad.json"
    make(bad, cli.results.read_text())
    for command in READERS if damage in ("missing", "truncated") else ["report"]:
        done = cli(*READERS[command](bad, cli.results))
        assert done.returncode == 2, command
        assert "bad.json: " in done.stderr
        assert said in done.stderr


def test_doctor_finds_a_backend_and_tells_remedies(cli: Cli) -> None:
    done = cli("doctor")
    assert done.returncode == 0
    assert "Runs here: " in done.stdout
    assert "ONNX Runtime" in done.stdout
    assert "baselines: stored for cpu-" in done.stdout
    empty = cli("doctor", "--baselines", "nowhere")
    assert empty.returncode == 0
    assert "remedy: perfgate run, then perfgate promote" in empty.stdout


def test_doctor_tells_of_a_store_that_cannot_be_written(cli: Cli) -> None:
    assert f"✓ store: {cli.root / '.perfgate'}" in cli("doctor").stdout
    assert not (cli.root / ".perfgate").exists(), "it only looks"
    (cli.root / ".perfgate").write_text("a file")
    done = cli("doctor")
    assert f"✗ store: {cli.root / '.perfgate'} is not a folder" in done.stdout
    assert "remedy: choose a writable folder with the setting store" in done.stdout


def test_doctor_refuses_a_backend_that_is_not(cli: Cli) -> None:
    done = cli("doctor", "--backend", "frob")
    assert done.returncode == 2
    assert "frob" in done.stderr


@pytest.mark.parametrize("kind", ["results", "baseline", "model", "business"])
def test_schema_is_json_schema(cli: Cli, kind: str) -> None:
    done = cli("schema", kind)
    assert done.returncode == 0
    assert "$defs" in json.loads(done.stdout)


def test_the_results_schema_describes_the_real_results_file(cli: Cli) -> None:
    schema = json.loads(cli("schema", "results").stdout)
    _check(json.loads(cli.results.read_text()), schema, schema["$defs"], "$")


def test_the_baseline_schema_describes_the_real_baseline(cli: Cli) -> None:
    schema = json.loads(cli("schema", "baseline").stdout)
    path = next(cli.root.glob("baselines/*/*/tinyconv.json"))
    _check(json.loads(path.read_text()), schema, schema["$defs"], "$")


TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def _check(value: Any, schema: Any, defs: Any, where: str) -> None:
    """The structure alone: types, required and known keys, constants, and one alternative that fits."""
    if "$ref" in schema:
        return _check(value, defs[schema["$ref"].rsplit("/", 1)[1]], defs, where)
    if "anyOf" in schema:
        return _check_any(value, schema["anyOf"], defs, where)
    assert value in schema.get("enum", [value]), where
    kinds = schema.get("type", list(TYPES))
    accepted = [kind for name in ([kinds] if isinstance(kinds, str) else kinds) for kind in TYPES[name]]
    assert type(value) in accepted, f"{where}: {type(value)}"
    if isinstance(value, dict):
        known = schema.get("properties", {})
        assert set(schema.get("required", [])) <= value.keys(), where
        more = schema.get("additionalProperties", True)
        for key, item in value.items():
            assert key in known or more is not False, f"{where}.{key}"
            _check(item, known.get(key, more if isinstance(more, dict) else {}), defs, f"{where}.{key}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, schema.get("items") or {}, defs, f"{where}[{index}]")
    return None


def _check_any(value: Any, schemas: list[Any], defs: Any, where: str) -> None:
    failures = []
    for schema in schemas:
        try:
            return _check(value, schema, defs, where)
        except AssertionError as error:
            failures.append(str(error))
    raise AssertionError(f"{where}: no alternative fits: {failures}")


def _written(cli: Cli, name: str, table: Any) -> Path:
    path: Path = cli.root / name
    path.write_text(json.dumps(table))
    return path
