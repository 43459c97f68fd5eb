"""The command line: a thin front door. It parses, calls the rooms, prints, and turns errors into advice.

Exit codes: 0 all well, 1 a case is red, 2 usage or configuration, 3 environment or infrastructure.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

import rich_click as click

from perfgate._version import __version__
from perfgate.errors import PerfgateError

# Every command in its group; each is a module of `perfgate.cli.commands`, loaded when it is used.
GROUPS = {
    "Gate": ("run", "compare", "report", "merge"),
    "Why": ("explain", "bisect", "bundle"),
    "Models": ("build", "export", "precision", "throughput", "schema"),
    "Baselines": ("promote", "release", "sensitivity"),
    "Over time": ("history", "trend", "site"),
    "Publish": ("github", "alert", "metrics", "exporter"),
    "Business": ("business-case",),
    "Machine": ("doctor", "selftest", "image"),
}
# Former names; they work as ever and are not listed.
ALIASES = {"aa": "selftest", "anchor": "release", "power": "sensitivity", "value": "business-case"}
_FINISHING = b"\nperfgate: finishing; press Ctrl-C again to stop at once\n"


def main() -> NoReturn:
    """The console script: `PerfgateError` becomes a short message and its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    # It may be ignored, as a shell has it for what runs in the background.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        # Not standalone, click returns the code of an `Exit` and raises the rest.
        code = cli(standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        code = 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("perfgate: interrupted", err=True)
        code = 3
    except PerfgateError as error:
        code = _report(error)
    except OSError as error:
        from perfgate.util.files import FULL_DISK, write_error

        if error.errno not in FULL_DISK:
            raise
        code = _report(write_error(Path(error.filename or "the temporary folder"), error))
    sys.exit(code)


def _report(error: PerfgateError) -> int:
    click.echo(f"perfgate: error: {error}", err=True)
    return error.exit_code


def _interrupt(number: int, frame: object) -> NoReturn:
    # SIGTERM, as a cancelled CI job sends it, is a Ctrl-C: children are killed, what was measured is kept.
    if number == signal.SIGINT:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the second one says nothing
        # Not by `print`: its buffer may be in the middle of another line when the signal comes.
        with contextlib.suppress(OSError):
            os.write(2, _FINISHING)
    raise KeyboardInterrupt


class _Commands(click.RichGroup):
    """The commands of `GROUPS`, each imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in GROUPS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"perfgate.cli.commands.{name.replace('-', '_')}")
        command: click.Command = getattr(module, name.replace("-", "_"))
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.rich_config(
    {
        "command_groups": {
            "perfgate": [{"name": title, "commands": list(names)} for title, names in GROUPS.items()]
        }
    }
)
@click.version_option(__version__, prog_name="perfgate")
def cli() -> None:
    """Performance-regression gate for neural networks on TensorRT.

    Start with `perfgate doctor`, then `perfgate run`: it builds and measures every case of models/*.toml,
    compares with baselines/, and writes perfgate-out/results.json and report.html.

    Examples:

    - perfgate run models/resnet50.toml -k fp16

    - perfgate promote perfgate-out/results.json --reason "first baseline"

    - perfgate explain perfgate-out/results.json CASE

    Exit codes: 0 all well, 1 a case is red, 2 usage or configuration, 3 environment or infrastructure
    (CI may retry 3, never 1).
    """
