"""`perfgate precision`: set all precisions of a model side by side."""

from pathlib import Path
from typing import Any

import rich_click as click
from rich.console import Console

from perfgate.cli.options import load, output_option, settings_options

FORMATS = ("terminal", "markdown", "json")


PRECISIONS = ("fp32", "fp16", "int8", "int8+fp16")


@click.command()
@click.argument("model")
@click.option("--precision", "precisions", multiple=True, type=click.Choice(PRECISIONS), help="Only these.")
@click.option("--shape", default="", help="Measure at this shape, such as b8.  [default: the spec's first]")
@click.option("--layers", "most", type=click.IntRange(0, 1000), default=10, show_default=True,
              help="Layers to name a precision, those that lose most.")  # fmt: skip
@click.option("--launches", type=int, default=2, show_default=True, help="Launches a precision.")
@click.option("--format", "kind", type=click.Choice(FORMATS), default="terminal", show_default=True)
@output_option
@settings_options("models", "backend", "device")
def precision(model: str, kind: str, output: Path | None, **flags: Any) -> None:
    """Compare all precisions of MODEL: latency, size, memory, error, and which layers lose most.

    Builds and measures each; judges answers by the spec's thresholds, and gates nothing.

    Example: perfgate precision resnet50 --shape b8
    """

    from perfgate.model.read import read_specs
    from perfgate.report.precision import print_table, render
    from perfgate.run.analysis.precisions import compare_precisions, named_spec
    from perfgate.run.pipeline import Pipeline
    from perfgate.util.files import record_json, write_text
    from perfgate.util.progress import make_progress

    asked = {name: flags.pop(name) for name in ("precisions", "shape", "most")}
    settings = load({**flags, "remeasure": True, "all_cases": True})
    spec = named_spec(read_specs([settings.path("models")]), model)
    with make_progress() as progress:
        table = compare_precisions(Pipeline(settings, progress), spec, **asked)
    text = record_json(table) if kind == "json" else render(table)
    if output is not None:
        write_text(output, text)
    elif kind == "terminal":
        print_table(table, Console())
    else:
        click.echo(text, nl=False)
