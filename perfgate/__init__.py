"""perfgate: a CI performance-regression gate for neural networks on TensorRT.

For a running service: `perfgate.metadata(engine_path)` reads an exported engine's sidecar.
"""

from perfgate._version import __version__

__all__ = ["__version__", "metadata"]


def __getattr__(name: str) -> object:
    # Loaded when it is used: `import perfgate` stays cheap.
    if name == "metadata":
        from perfgate.engine.export import metadata

        return metadata
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
