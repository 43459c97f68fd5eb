"""For all tests: signals as a terminal has them."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """A CI runner may start us as a background job, with SIGINT or SIGHUP ignored, and children inherit
    that: then no test could interrupt one."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
