"""perfgate: a CI performance-regression gate for neural networks on TensorRT."""

__all__ = ["__version__"]

__version__ = "0.1.0"
