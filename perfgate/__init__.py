"""perfgate: a CI performance-regression gate for neural networks on TensorRT.

For a running service: `perfgate.engine.metadata(engine_path)` reads an exported engine's sidecar.
"""

from perfgate._version import __version__

__all__ = ["__version__", "metadata"]


def __getattr__(name: str) -> object:
    # Loaded when it is asked for: `import perfgate` stays cheap.
    if name == "metadata":
        import importlib

        return importlib.import_module("perfgate.engine.metadata")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
