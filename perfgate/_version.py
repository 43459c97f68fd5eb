"""The version, in a module of its own: it is read without importing the package."""

__version__ = "0.1.0"
