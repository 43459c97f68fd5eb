"""`perfgate value`: a table that a person can read, and exit 2 with the reasons where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from business_runs import DATA
from value_runs import CPU, case, launch, measured, result, run

from perfgate import value as value_package
from perfgate.records import Measured, RunResult
from perfgate.report.value import markdown as value_markdown, terminal as value_terminal
from perfgate.util.files import record_json
from perfgate.util.process import package_environment
from perfgate.value.business import BusinessCase
from perfgate.value.stacks import compare_stacks

TORCH = run(result(case(), measured(3_000_000, 3_100_000, 2_900_000)))
TRT = run(result(case(backend="tensorrt"), measured(1_000_000, 1_000_000)), number=2)


def value(folder: Path, *results: RunResult, more: tuple[str, ...] = ()) -> tuple[int, str, str]:
    paths = [folder / f"{number}.json" for number in range(len(results))]
    for path, one in zip(paths, results, strict=True):
        path.write_text(record_json(one))
    done = subprocess.run(
        [sys.executable, "-m", "perfgate", "value", *map(str, paths), *more],
        capture_output=True,
        text=True,
        timeout=60,
        env={**package_environment(), "COLUMNS": "200", "PYTHONUTF8": "1"},
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_table(tmp_path: Path) -> None:
    code, out, err = value(tmp_path, TORCH, TRT)
    assert (code, err) == (0, "")
    assert "torch 2.11.0 eager on NVIDIA H200; the original" in out
    assert "resnet50/fp32/b8" in out
    assert "3.00 × as fast [2.90 to 3.10]" in out
    assert "enqueue, transfers, block" in out
    assert "no confidence interval" in out


def test_json_is_a_versioned_record_that_holds_the_stacks(tmp_path: Path) -> None:
    code, out, _ = value(tmp_path, TORCH, TRT, more=("--format", "json"))
    assert code == 0
    case = msgspec.json.decode(out, type=BusinessCase)
    assert case.schema == "perfgate-trt/business/v1"
    assert case.stacks == compare_stacks([TORCH, TRT])


def test_markdown(tmp_path: Path) -> None:
    code, out, _ = value(tmp_path, TORCH, TRT, more=("--format", "markdown"))
    assert code == 0
    assert "| <code>resnet50/fp32/b8</code> | torch 2.11.0 eager | enqueue, transfers, block |" in out


def test_nothing_to_compare(tmp_path: Path) -> None:
    code, out, err = value(tmp_path, TORCH, run(result(case(backend="tensorrt")), key=CPU, number=2))
    assert code == 2
    assert "another device: cpu-epyc, and torch 2.11.0 eager ran on nvidia-h200" in out
    assert "no model of theirs can be set beside the original's" in err and "fix:" in err


def test_one_file_is_a_usage_error(tmp_path: Path) -> None:
    code, out, err = value(tmp_path, TORCH)
    assert (code, out) == (2, "")
    assert "needs two results files" in err


def test_one_run_on_both_sides_is_a_usage_error(tmp_path: Path) -> None:
    code, out, err = value(tmp_path, TORCH, TORCH)
    assert (code, out) == (2, "")
    assert f"1.json: holds the run of {tmp_path / '0.json'}: {TORCH.run_id}" in err and "fix: " in err


def test_given_numbers_need_no_results(tmp_path: Path) -> None:
    given = ("--inputs", str(DATA / "example.toml"))
    code, out, err = value(tmp_path, more=(*given, "--format", "csv"))
    assert (code, err) == (0, "")
    assert "instances,42,11," in out and "deploy_hours,24,4," in out


@pytest.mark.parametrize(("language", "word"), [("en", "Average latency"), ("zh-CN", "平均延迟")])
def test_a_page_in_a_file(tmp_path: Path, language: str, word: str) -> None:
    page = tmp_path / "out" / "value.html"
    more = ("--inputs", str(DATA / "demo.toml"), "--format", "html", "-o", str(page), "--lang", language)
    code, out, err = value(tmp_path, TORCH, TRT, more=more)
    assert (code, out) == (0, "")
    assert f"wrote {page}" in err and word in page.read_text()


def test_the_shipped_demonstration_and_flags_over_its_inputs(tmp_path: Path) -> None:
    more = ("--inputs", str(DATA / "demo.toml"), "--peak", "1000", "--spare", "0", "--format", "json")
    code, out, _ = value(tmp_path, TORCH, TRT, more=more)
    assert code == 0
    case = msgspec.json.decode(out, type=BusinessCase)
    assert case.peak_per_s == 1000 and case.terms.inputs.fleet.spare == 0
    assert case.terms.inputs.limit.p99_ms == 20 and case.tensorrt.fleet is not None


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--peak", "-5"), "$.load.peak_per_s"),
        (("--peak", "nan"), "$.load.peak_per_s"),
        (("--p99-ms", "0"), "$.limit.p99_ms"),
        (("--instance", "mine"), "no price for 'mine'"),
        (("--model", "bert"), "as 'bert'"),
        (("--inputs", "absent.toml"), "absent.toml"),
        (("--prices", "absent.toml"), "absent.toml"),
    ],
)
def test_mistakes_are_usage_errors(tmp_path: Path, more: tuple[str, ...], told: str) -> None:
    code, _, err = value(tmp_path, TORCH, TRT, more=more)
    assert code == 2
    assert told in err and "Traceback" not in err


def test_prices_of_one_s_own(tmp_path: Path) -> None:
    shipped = (Path(value_package.__file__).parent / "prices.toml").read_text()
    mine = tmp_path / "prices.toml"
    mine.write_text(shipped.replace("63.296", "80.0"))
    more = ("--prices", str(mine), "--peak", "10", "--p99-ms", "50", "--format", "json")
    code, out, _ = value(tmp_path, TORCH, TRT, more=more)
    assert code == 0
    case = msgspec.json.decode(out, type=BusinessCase)
    assert case.tensorrt.instance_month == pytest.approx(80 * 730)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text("{")
    code, _, err = value(tmp_path, TORCH, more=(str(tmp_path / "1.json"),))
    assert code == 2
    assert "1.json" in err


@pytest.mark.parametrize("width", [80, 120, 150])
def test_every_width_keeps_mode_and_numbers(width: int) -> None:
    text = value_terminal.render(compare_stacks([TORCH, TRT]), width=width)
    table = text.split("\n\n")[1]
    assert all(len(line) <= width for line in table.splitlines())
    assert "transfers" in table and "1.000 ms" in table


def test_few_samples_are_marked() -> None:
    few = run(result(case(), Measured(engine=None, launches=(launch(1_000_000, samples=100),))))
    text = value_terminal.render(compare_stacks([few, TRT]), width=200)
    assert "~2.000 ms" in text and "fewer than 1,001 samples" in text
    assert "~" not in value_terminal.render(compare_stacks([TORCH, TRT]), width=200)


def test_foreign_text_is_shown_and_does_nothing() -> None:
    name = "evil\x1b[31m | <b> @team `x`"
    hostile = [
        run(result(case(name, backend=backend)), number=n) for n, backend in enumerate(("torch", "x|y"))
    ]
    table = compare_stacks(hostile)
    assert "\x1b" not in value_terminal.render(table)
    markdown = value_markdown.render(table)
    assert "<b>" not in markdown and "@team" not in markdown and "\x1b" not in markdown
    row = next(line for line in markdown.splitlines() if "evil" in line)
    assert row.count("|") == 10
