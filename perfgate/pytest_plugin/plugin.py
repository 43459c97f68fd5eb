"""The pytest front door: specs become items, measuring is one step after collection, items then report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from perfgate.settings import options

if TYPE_CHECKING:
    from perfgate.pytest_plugin.session import GateSession

# The settings that pytest has options for, each with `--perfgate-` before its flag.
_SETTINGS = (
    "backend",
    "device",
    "baselines",
    "out",
    "launches",
    "policy_from",
    "base",
    "target",
    "confirm_budget",
    "duration_ms",
    "remeasure",
    "all_cases",
    "require_baseline",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("perfgate", "performance-regression gate for neural networks")
    group.addoption(
        "--perfgate",
        action="store_true",
        help="collect models/*.toml as items, measure them after collection, and gate them",
    )
    for name in _SETTINGS:
        option = options()[name]
        kind: Any = {"action": "store_true"} if option.kind is bool else {"type": option.kind}
        group.addoption(
            f"--perfgate-{option.flag}",
            dest=f"perfgate_{name}",
            default=None,
            help=option.description,
            **kind,
        )


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("perfgate") or config.getoption("help", default=False):
        return
    from perfgate.errors import PerfgateError
    from perfgate.pytest_plugin.session import GateSession

    flags = {name: config.getoption(f"perfgate_{name}") for name in _SETTINGS}
    try:
        gate = GateSession(config, flags)
    except PerfgateError as error:
        pytest.exit(f"perfgate: {error}", returncode=error.exit_code)
    config.pluginmanager.register(gate, "perfgate-session")


@pytest.fixture
def perfgate(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Measure and gate a function of the test's own: `perfgate(load)`.

    `load` is a function at the top of the test file. It is called in fresh processes; it loads what it
    needs and returns the callable whose time is judged. Without `--perfgate` it is called once, here.
    """
    session: GateSession | None = request.config.pluginmanager.get_plugin("perfgate-session")
    yield (
        (lambda load: load()())
        if session is None
        else (lambda load: session.gate_function(request.node, load.__name__))
    )
