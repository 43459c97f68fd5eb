"""CUDA as perfgate uses it: the primary context, streams, events and buffers by PyCUDA, graphs by
cuda-bindings (PyCUDA has none), all on the same stream handles."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from perfgate.errors import CaseError, InfrastructureError

if TYPE_CHECKING:
    import numpy as np

_NON_BLOCKING_STREAM = 1


class GraphCaptureError(CaseError):
    """The network cannot be captured as a CUDA graph; it is never measured some other way instead."""

    def __init__(self, why: str, *, stderr_tail: str = "") -> None:
        self.why = why
        super().__init__(
            f"the inference cannot be captured as a CUDA graph: {why}",
            stderr_tail=stderr_tail,
            fix="measure it with a mode that says 'enqueue', or remove what synchronises inside the network",
        )


class CudaContext:
    """The device's primary context, current until `close`. The primary one, because TensorRT's own
    CUDA runtime uses no other."""

    def __init__(self) -> None:
        try:
            import pycuda.driver as cuda

            cuda.init()
            self._device = cuda.Device(0)
            self._context: Any = self._device.retain_primary_context()
        except Exception as error:  # ImportError for a missing libcuda, pycuda's own errors otherwise
            raise InfrastructureError(
                f"CUDA cannot be used from PyCUDA: {error}",
                fix="check the driver with nvidia-smi, and pip install 'perfgate[tensorrt]'",
            ) from error
        self.cuda = cuda
        self._context.push()

    def stream(self) -> Any:
        """A stream that does not wait for the default one."""
        return self.cuda.Stream(_NON_BLOCKING_STREAM)

    def event(self, *, blocking: bool) -> Any:
        """A timing event; `blocking` lets `synchronize` sleep where it would otherwise spin."""
        return self.cuda.Event(self.cuda.event_flags.BLOCKING_SYNC if blocking else 0)

    def close(self) -> None:
        """Pop and release the context; everything made in it must be gone by now."""
        if self._context is None:
            return
        self.cuda.Context.pop()
        self._context = None
        self._device = None


class Buffer:
    """One tensor: page-locked host memory and device memory of the same size."""

    def __init__(self, context: CudaContext, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        import numpy as np

        cuda = context.cuda
        self._cuda = cuda
        # CUDA allocates no empty memory, and an empty tensor still needs an address.
        self._empty = 0 in shape
        self.host: Any = np.empty(shape, dtype) if self._empty else cuda.pagelocked_empty(shape, dtype)
        self.host.fill(0)  # fresh pages hold anything, and graphs are captured before inputs are bound
        self._device = cuda.mem_alloc(max(1, self.host.nbytes))
        self.address = int(self._device)
        if not self._empty:
            cuda.memcpy_htod(self.address, self.host)

    def to_device(self, stream: Any) -> None:
        if not self._empty:
            self._cuda.memcpy_htod_async(self.address, self.host, stream)

    def to_host(self, stream: Any) -> None:
        if not self._empty:
            self._cuda.memcpy_dtoh_async(self.host, self.address, stream)

    def close(self) -> None:
        """Free the device memory now; the host memory goes with its last reference."""
        if self._device is not None:
            self._device.free()
            self._device = self.host = None


class Graph:
    """A captured and instantiated CUDA graph. `launch` enqueues it on the stream it was captured from."""

    def __init__(self, stream: Any, enqueue: Any) -> None:
        """Capture what `enqueue()` puts on the stream. Raises `GraphCaptureError`."""
        driver = _driver()
        self._driver = driver
        self._stream = driver.CUstream(int(stream.handle))
        # Thread-local: another thread's allocation must not spoil the capture.
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _check(driver, driver.cuStreamBeginCapture(self._stream, mode), "begin capture")
        captured, why = False, "TensorRT refused to enqueue"
        try:
            captured = bool(enqueue())
        except Exception as error:
            why = str(error)
        # Ended on every path: a stream left in capture mode would fail whatever comes next.
        ended = driver.cuStreamEndCapture(self._stream)
        if not captured:
            if int(ended[0]) == 0:
                driver.cuGraphDestroy(ended[1])
            raise GraphCaptureError(why)
        graph = _check(driver, ended, "end capture")
        try:
            self._exec = _check(driver, driver.cuGraphInstantiate(graph, 0), "instantiate")
        finally:
            driver.cuGraphDestroy(graph)

    def launch(self) -> bool:
        """Enqueue one replay; False when CUDA refused it."""
        return int(self._driver.cuGraphLaunch(self._exec, self._stream)[0]) == 0

    def close(self) -> None:
        if self._exec is not None:
            self._driver.cuGraphExecDestroy(self._exec)
            self._exec = None


def _driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise GraphCaptureError(f"cuda-bindings cannot be imported ({error})") from error
    return driver


def _check(driver: Any, answer: Any, step: str) -> Any:
    if int(answer[0]) == 0:
        return answer[1] if len(answer) > 1 else None
    name = str(answer[0])
    with contextlib.suppress(Exception):
        name = driver.cuGetErrorName(answer[0])[1].decode()
    raise GraphCaptureError(f"{step} failed with {name}")
