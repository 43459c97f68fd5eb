"""For all tests: signals as a terminal has them, and processors of one's own."""

from __future__ import annotations

import os
import signal


def pytest_configure() -> None:
    """A CI runner may start us as a background job, with SIGINT or SIGHUP ignored, and children inherit
    that: then no test could interrupt one."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    _keep_to_a_share_of_the_processors()


def _keep_to_a_share_of_the_processors() -> None:
    """Under `pytest -n` each worker, and all that it starts, has processors of its own: what one measures is
    not the others' load, and no two thread pools wait for one processor."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if not worker or not hasattr(os, "sched_setaffinity"):
        return
    processors = sorted(os.sched_getaffinity(0))
    number, workers = int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    if workers <= len(processors):
        os.sched_setaffinity(0, processors[number::workers])
