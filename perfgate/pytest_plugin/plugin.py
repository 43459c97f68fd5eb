"""The pytest front door: specs become items, measuring is one step after collection, items then report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from perfgate.pytest_plugin.session import GateSession

_OPTIONS = (
    ("--perfgate-backend", "backend", "auto, onnxruntime, …"),
    ("--perfgate-device", "device", "auto, cpu, or a GPU's index or UUID"),
    ("--perfgate-baselines", "baselines", "folder of baselines"),
    ("--perfgate-out", "out", "folder for results.json and report.html"),
    ("--perfgate-launches", "launches", "launches a case"),
    ("--perfgate-policy-from", "policy_from", "git revision whose policy judges; base: the change's base"),
    ("--perfgate-base", "base", "git revision that the change is held against"),
    ("--perfgate-confirm-budget", "confirm_budget", "launches a side, or seconds as 90s, a suspect may take"),
    ("--perfgate-duration-ms", "duration_ms", "sampling time of a launch"),
)
_FLAGS = (
    ("--perfgate-remeasure", "remeasure", "measure unchanged cases all the same"),
    ("--perfgate-all", "all_cases", "also cases that a spec skips here"),
    ("--perfgate-require-baseline", "require_baseline", "a case without a baseline fails"),
)
_NUMBERS = {"launches", "duration_ms"}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("perfgate", "performance-regression gate for neural networks")
    group.addoption(
        "--perfgate",
        action="store_true",
        help="collect models/*.toml as items, measure them after collection, and gate them",
    )
    for flag, name, text in _OPTIONS:
        kind: Any = int if name in _NUMBERS else str
        group.addoption(flag, dest=f"perfgate_{name}", type=kind, default=None, help=text)
    for flag, name, text in _FLAGS:
        group.addoption(flag, dest=f"perfgate_{name}", action="store_true", default=None, help=text)


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("perfgate") or config.getoption("help", default=False):
        return
    from perfgate.errors import PerfgateError
    from perfgate.pytest_plugin.session import GateSession

    names = [name for _, name, _ in (*_OPTIONS, *_FLAGS)]
    flags = {name: config.getoption(f"perfgate_{name}") for name in names}
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
