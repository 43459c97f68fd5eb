"""`perfgate schema`: print the JSON Schemas."""

import rich_click as click


@click.command()
@click.argument("kind", type=click.Choice(["results", "baseline", "model", "business"]))
def schema(kind: str) -> None:
    """Print the JSON Schema of results, baseline, model or business-case files.

    Example: perfgate schema results
    """
    import json

    import msgspec

    from perfgate.model.spec import ModelSpec
    from perfgate.records import Baseline, RunResult
    from perfgate.value.business import BusinessCase

    types: dict[str, type] = {
        "results": RunResult,
        "baseline": Baseline,
        "model": ModelSpec,
        "business": BusinessCase,
    }
    click.echo(json.dumps(msgspec.json.schema(types[kind]), indent=2, sort_keys=True))
