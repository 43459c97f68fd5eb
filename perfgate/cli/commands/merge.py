"""`perfgate merge`: join the results of a matrix."""

from pathlib import Path

import rich_click as click
from click.exceptions import Exit


@click.command()
@click.argument("shards", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--expect", multiple=True, metavar="LEG", help="A leg that has to be there; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("perfgate-out"), show_default=True)
@click.option("--trends", default="", metavar="LINK", help="Where the first page finds the site of trends.")
def merge(shards: tuple[Path, ...], expect: tuple[str, ...], out: Path, trends: str) -> None:
    """Join the results of a matrix: SHARDS are results files, or folders that hold some.

    Writes OUT/<leg>/results.json and report.html, OUT/index.html and OUT/comment.md. A shard or an expected
    leg that did not arrive, a case that none or two measured: exit 3, and 1 where a case is red.

    Example: perfgate merge results/ --expect gpu-h200 --out merged
    """
    from perfgate.publish.github import environment
    from perfgate.report.run.legs import headline, index, markdown
    from perfgate.run import merge as merging
    from perfgate.run.merge import exit_code
    from perfgate.run.outputs import write_outputs
    from perfgate.util.files import write_text

    paths = merging.find_results(list(shards))
    legs = merging.read_legs(paths, expected=list(expect) or environment.expected_legs(required=False))
    for leg in legs:
        if leg.result:
            write_outputs(leg.result, out / leg.name)
            merging.copy_timing(leg.result, paths, out / leg.name)
        for fault in leg.faults:
            click.echo(f"perfgate: {leg.name}: {fault}", err=True)
    code = exit_code(legs)
    write_text(out / "index.html", index(legs, code, trends=trends))
    write_text(out / "comment.md", markdown(legs, code))
    click.echo(headline(legs, code))
    raise Exit(code)
