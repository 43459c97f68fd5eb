"""`perfgate exporter`: serve the figures of a results file."""

import signal
import threading
from pathlib import Path

import rich_click as click


@click.command()
@click.option("--results", required=True, type=click.Path(path_type=Path), help="Results file to watch.")
@click.option("--port", type=click.IntRange(0, 65_535), default=9877, show_default=True)
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on.")
def exporter(results: Path, port: int, address: str) -> None:
    """Serve the figures of a results file at /metrics until stopped; a changed file is read again.

    Example: perfgate exporter --results perfgate-out/results.json
    """
    from perfgate.publish.prometheus import Exporter
    from perfgate.run.outputs import read_results

    stop = threading.Event()
    # Asked to stop, an exporter has done its work: SIGTERM is no interruption and no error here.
    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        served = Exporter(results, read_results, warn=lambda text: click.echo(f"perfgate: {text}", err=True))
        served.serve(
            port, address, stop, ready=lambda real: click.echo(f"serving http://{address}:{real}/metrics")
        )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
