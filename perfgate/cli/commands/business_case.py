"""`perfgate business-case`: what TensorRT buys over the original."""

from __future__ import annotations

import importlib
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click
from rich.console import Console

from perfgate.cli.options import load, output_option
from perfgate.errors import UsageError
from perfgate.records import RunResult
from perfgate.report.i18n import LANGUAGES
from perfgate.util.files import TEXT_LIMIT_BYTES, read_bytes, record_json, write_text
from perfgate.value.assumptions import DEFAULT_INPUTS, Inputs, Prices, parse_inputs, parse_prices, terms
from perfgate.value.business import BusinessCase

FORMATS = ("terminal", "markdown", "html", "csv", "json")


_SHIPPED = Path(__file__).resolve().parents[2] / "value" / "prices.toml"


@click.command()
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--inputs", type=click.Path(path_type=Path), help="TOML: load, limit, fleet, effort, given numbers."
)
@click.option(
    "--prices", type=click.Path(path_type=Path), help="TOML price list.  [default: the shipped one]"
)
@click.option("--model", "wanted", default="", help="A model, or model/precision.  [default: like with like]")
@click.option("--peak", "peak_per_s", type=float, help="Requests a second at the peak.")
@click.option("--monthly", "per_month", type=float, help="Requests a month.")
@click.option("--p99-ms", "p99_ms", type=float, help="Limit on a request's P99, queueing included.")
@click.option("--headroom", type=float, help="Capacity above the peak, as a share.  [default: 0.3]")
@click.option("--spare", type=int, help="Instances beyond those needed (N+1 is 1).  [default: 0]")
@click.option("--instance", help="A machine of the price list.  [default: the first with this GPU]")
@click.option("--format", "kind", type=click.Choice(FORMATS), default="terminal", show_default=True)
@output_option
@click.option("--lang", "language", type=click.Choice(LANGUAGES), help="Language.  [default: en]")
def business_case(
    results: tuple[Path, ...], kind: str, output: Path | None, language: str | None, **flags: Any
) -> None:
    """What TensorRT buys over the original: latency, GPUs and money. Measures nothing.

    The first RESULTS file is the original, such as PyTorch; or --inputs gives both stacks' numbers by hand.

    Example: perfgate business-case pytorch.json tensorrt.json --p99-ms 20 --peak 5000
    """
    inputs = _inputs(flags)
    if len(results) < 2 and inputs.given is None:
        raise UsageError(
            "needs two results files or more, or given numbers",
            where="perfgate business-case",
            fix="name the original's file first, or give both stacks in --inputs FILE",
        )
    case, runs = _case(results, inputs, flags["prices"], flags["wanted"])
    spoken = language or load({}).language
    if output is not None:
        write_text(output, _render(case, kind, spoken))
        click.echo(f"wrote {output}", err=True)
    elif kind == "terminal":
        _print(case, runs, spoken)
    else:
        click.echo(_render(case, kind, spoken), nl=False)


def _case(
    results: tuple[Path, ...], inputs: Inputs, prices: Path | None, wanted: str
) -> tuple[BusinessCase, list[RunResult]]:
    from perfgate.run.outputs import read_results
    from perfgate.value.compose import given_case, measured_case

    now = datetime.now(timezone.utc)
    made, known = f"{now:%Y-%m-%d}", _prices(prices)
    if not results:
        assert inputs.given is not None
        return given_case(terms(inputs, known, inputs.given.device, now.date()), made), []
    runs = [read_results(path) for path in results]
    _refuse_twice(results, runs)
    key = runs[0].environment.key
    found = terms(inputs, known, key.get("gpu", ""), now.date())
    try:
        return measured_case(runs, found, made, wanted=wanted), runs
    except UsageError as error:
        # The reasons, case by case, are what helps.
        _print_stacks(runs)
        raise UsageError(error.what, where=", ".join(map(str, results)), fix=error.fix) from error


def _refuse_twice(results: tuple[Path, ...], runs: list[RunResult]) -> None:
    """One run on both sides would say that nothing was gained."""
    seen: dict[str, Path] = {}
    for path, run in zip(results, runs, strict=True):
        if run.run_id in seen:
            raise UsageError(
                f"holds the run of {seen[run.run_id]}: {run.run_id}",
                where=path,
                fix="name the original's results first, then another stack's",
            )
        seen[run.run_id] = path


def _inputs(flags: dict[str, Any]) -> Inputs:
    """The file's inputs with the flags over them."""
    path: Path | None = flags["inputs"]
    inputs = DEFAULT_INPUTS
    if path is not None:
        inputs = parse_inputs(read_bytes(path, limit_bytes=TEXT_LIMIT_BYTES), str(path))

    def over(record: msgspec.Struct, *names: str) -> dict[str, Any]:
        asked = {name: flags[name] for name in names if flags[name] is not None}
        return {**msgspec.to_builtins(record), **asked}

    changed = {
        **msgspec.to_builtins(inputs),
        "load": over(inputs.load, "peak_per_s", "per_month"),
        "limit": over(inputs.limit, "p99_ms"),
        "fleet": over(inputs.fleet, "headroom", "spare", "instance"),
    }
    try:
        return msgspec.convert(changed, Inputs)
    except msgspec.ValidationError as error:
        raise UsageError(
            str(error), where="perfgate business-case", fix="see perfgate business-case --help"
        ) from error


def _prices(path: Path | None) -> Prices:
    named = path or _SHIPPED
    return parse_prices(read_bytes(named, limit_bytes=TEXT_LIMIT_BYTES), str(named))


def _render(case: BusinessCase, kind: str, language: str) -> str:

    if kind == "json":
        return record_json(case)
    module: Any = importlib.import_module(f"perfgate.report.value.{kind}")
    text: str = module.render_case(case, language)
    return text


def _print(case: BusinessCase, runs: list[RunResult], language: str) -> None:
    from perfgate.report.value.terminal import print_case

    print_case(case, Console(), language)
    if case.stacks is not None and case.stacks.rows:
        click.echo("")
        _print_stacks(runs, language)


def _print_stacks(runs: list[RunResult], language: str = "en") -> None:
    from perfgate.report.value.terminal import print_stacks
    from perfgate.value.stacks import compare_stacks

    print_stacks(compare_stacks(runs), Console(), language)
