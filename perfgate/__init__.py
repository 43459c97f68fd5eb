"""perfgate: a CI performance-regression gate for neural networks on TensorRT.

For a running service: `perfgate.metadata(engine_path)` reads an exported engine's sidecar.
"""

__all__ = ["__version__", "metadata"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Loaded when it is asked for: `import perfgate` stays cheap.
    if name == "metadata":
        import importlib

        return importlib.import_module("perfgate.metadata")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
