"""`perfgate bundle`: write a zip with all that is known of a case."""

import contextlib
from pathlib import Path

import rich_click as click

from perfgate.cli.lookup import case_of
from perfgate.cli.options import load


@click.command()
@click.argument("case")
@click.option("--results", type=click.Path(path_type=Path), help="[default: perfgate-out/results.json]")
@click.option("--out", "target", type=click.Path(path_type=Path), help="The zip to write.")
@click.option("--include-weights", is_flag=True, help="Put the ONNX files in, weights and all.")
def bundle(case: str, results: Path | None, target: Path | None, include_weights: bool) -> None:
    """Write a zip with all that is known of CASE, which runs elsewhere: ready for an issue.

    Exact trtexec commands of both sides, digests and generators of the models, recipes, samples, layers and
    telemetry. Paths, host names, tokens and environment variables are not in it; look before you share it.

    Example: perfgate bundle resnet50/fp16/b8 --out bundle.zip
    """
    from perfgate.gate.explain.bundle import Bundle, models_of
    from perfgate.run.outputs import RESULTS_NAME
    from perfgate.util.files import write_bytes
    from perfgate.util.redact import Scrubber

    settings = load({})
    run, found = case_of(results or settings.path("out") / RESULTS_NAME, case)
    target = target or settings.path("out") / f"bundle-{case.replace('/', '-')}.zip"
    with contextlib.ExitStack() as stack:
        models = models_of(settings, run, found, stack, lambda text: click.echo(text, err=True))
        scrub = Scrubber([Path(settings.root), Path.cwd(), settings.path("store")])
        data = Bundle(run, found, models, scrub).zipped(include_weights=include_weights)
    write_bytes(target, data)
    click.echo(f"wrote {target}: {len(data)} bytes; look at it before you share it")
