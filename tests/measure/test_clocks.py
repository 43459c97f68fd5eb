"""Locked clocks, against a stand-in for NVML only: no test ever touches a real GPU's clocks."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest

from perfgate.engine.gpu import Device
from perfgate.errors import InfrastructureError, UsageError
from perfgate.measure.clocks import clocks_of, locked_clocks

SET, RESET = "nvmlDeviceSetGpuLockedClocks", "nvmlDeviceResetGpuLockedClocks"


class FakeNvml:
    """Remembers calls; `errors` maps a call to the NVML code that it fails with."""

    class NVMLError(Exception):
        def __init__(self, value: int) -> None:
            super().__init__(f"NVML error {value}")
            self.value = value

    def __init__(self, **errors: int) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.errors = errors

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            self.calls.append((name, *arguments))
            if name in self.errors:
                raise self.NVMLError(self.errors[name])
            return arguments[0] if arguments else None

        return call

    def made(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == name]


def device(nvml: FakeNvml) -> Device:
    return Device(nvml, "MIG-handle", "GPU-handle", "MIG-1", "GPU-1")


def test_nothing_is_touched_unless_asked() -> None:
    nvml = FakeNvml()
    before = signal.getsignal(signal.SIGTERM)
    with locked_clocks(device(nvml), None):
        assert signal.getsignal(signal.SIGTERM) is before
    assert nvml.calls == []


def test_the_physical_gpu_is_locked_and_reset() -> None:
    nvml = FakeNvml()
    with locked_clocks(device(nvml), 1200):
        assert nvml.made(SET) == [("GPU-handle", 1200, 1200)]
        assert nvml.made(RESET) == []
    assert nvml.made(RESET) == [("GPU-1",)]
    assert len(nvml.made("nvmlInit")) == len(nvml.made("nvmlShutdown"))


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3)])
def test_every_exception_resets_and_goes_through(error: BaseException) -> None:
    nvml = FakeNvml()
    with pytest.raises(type(error)) as caught, locked_clocks(device(nvml), 1200):
        raise error
    assert caught.value is error
    assert nvml.made(RESET) == [("GPU-1",)]


@pytest.mark.parametrize(("code", "remedy"), [(4, "root"), (2, "SUPPORTED_CLOCKS"), (3, "SUPPORTED_CLOCKS")])
def test_a_lock_that_fails_is_a_usage_error_and_owes_no_reset(code: int, remedy: str) -> None:
    nvml = FakeNvml(**{SET: code})
    with pytest.raises(UsageError, match=remedy), locked_clocks(device(nvml), 1200):
        pytest.fail("nothing was locked")
    assert nvml.made(RESET) == []


@pytest.mark.parametrize("mhz", [0, -5])
def test_absurd_clocks_are_refused_before_nvml(mhz: int) -> None:
    nvml = FakeNvml()
    with pytest.raises(UsageError), locked_clocks(device(nvml), mhz):
        pytest.fail("nothing was locked")
    assert nvml.calls == []


def test_a_lock_that_stays_is_told() -> None:
    nvml = FakeNvml(**{RESET: 15})
    with pytest.raises(InfrastructureError, match="still locked"), locked_clocks(device(nvml), 1200):
        pass
    nvml.errors.clear()  # what is still owed at interpreter exit then succeeds


def test_a_lock_that_stays_does_not_hide_the_error(caplog: pytest.LogCaptureFixture) -> None:
    nvml = FakeNvml(**{RESET: 15})
    with pytest.raises(ValueError, match="mine"), locked_clocks(device(nvml), 1200):
        raise ValueError("mine")
    assert "still locked" in caplog.text
    nvml.errors.clear()


def test_another_thread_locks_without_signal_handlers() -> None:
    nvml = FakeNvml()

    def work() -> None:
        with locked_clocks(device(nvml), 1200):
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert nvml.made(RESET) == [("GPU-1",)]


def test_a_handler_that_somebody_set_is_left_alone() -> None:
    def mine(*_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with locked_clocks(device(FakeNvml()), 1200):
            assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


PROGRAM = """
    import os, signal, sys
    from perfgate.measure.clocks import clocks_of, locked_clocks
    from perfgate.measure.nvml import Device

    class Nvml:
        class NVMLError(Exception): ...
        def __getattr__(self, name):
            return lambda *arguments: os.write(1, (name + "\\n").encode())

    how = sys.argv[1]
    held = locked_clocks(Device(Nvml(), 0, 0, "GPU-1", "GPU-1"), 1200)
    held.__enter__()
    if how == "fork" and os.fork() == 0:
        sys.exit(0)  # a child runs the same exit functions
    print("locked", flush=True)
    if how == "fork":
        os.wait()
        print("child is gone", flush=True)
    if how in ("fork", "abandoned"):
        # No frame left to unwind: only the interpreter's exit is left.
        sys.exit(0)
    try:
        signal.pause()
    except BaseException as error:
        if not held.__exit__(type(error), error, error.__traceback__):
            raise
"""


def run_program(how: str, number: signal.Signals | None = None) -> tuple[int, list[str]]:
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(PROGRAM), how], stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = b""
    try:
        while b"locked\n" not in said:
            assert select.select([process.stdout], [], [], 60)[0]
            said += os.read(process.stdout.fileno(), 4096)
        if number is not None:
            process.send_signal(number)
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    return process.returncode, (said + rest).decode().splitlines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_resets_on_its_way_out(number: signal.Signals) -> None:
    returncode, said = run_program("pause", number)
    assert returncode == 128 + number
    assert said.count(RESET) == 1


def test_interpreter_exit_resets_what_was_abandoned() -> None:
    _, said = run_program("abandoned")
    assert said.count(RESET) == 1


def test_a_forked_child_resets_nothing() -> None:
    _, said = run_program("fork")
    assert said.count(RESET) == 1
    assert said.index(RESET) > said.index("child is gone")


def test_a_cpu_has_no_clock_to_lock() -> None:
    with pytest.raises(UsageError, match="cannot be locked"), clocks_of("cpu", "cpu", 1200):
        raise AssertionError("was entered")


def test_nothing_is_asked_of_a_device_where_no_lock_was_asked_for() -> None:
    with clocks_of("gpu", "no-such-device", None):
        pass
