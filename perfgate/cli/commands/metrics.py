"""`perfgate metrics`: hand figures to Prometheus."""

from pathlib import Path

import rich_click as click

from perfgate.errors import UsageError


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--textfile", type=click.Path(path_type=Path), help="For the node exporter; ends in .prom.")
@click.option("--pushgateway", metavar="URL", help="Replace what a Pushgateway holds of this device.")
@click.option("--job", default="perfgate", show_default=True, help="The Pushgateway's job.")
def metrics(results: Path, textfile: Path | None, pushgateway: str | None, job: str) -> None:
    """Hand the figures of RESULTS to Prometheus, as a text file or through a Pushgateway.

    Example: perfgate metrics perfgate-out/results.json --textfile perfgate.prom
    """
    from perfgate.publish import prometheus
    from perfgate.run.outputs import read_results

    if (textfile is None) == (pushgateway is None):
        raise UsageError("needs one of --textfile and --pushgateway", where="metrics")
    if not job:
        raise UsageError("is empty", where="--job")
    if pushgateway is not None:
        host = prometheus.check_gateway(pushgateway)
        prometheus.push(read_results(results), pushgateway, job=job)
        click.echo(f"pushed to {host}")
    elif textfile is not None:
        if textfile.suffix != ".prom":
            raise UsageError("the node exporter reads names that end in .prom alone", where="--textfile")
        prometheus.textfile(read_results(results), textfile)
        click.echo(f"wrote {textfile}")
