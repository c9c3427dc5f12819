"""The version of this package, which stores and results record."""

__version__ = "0.1.0"
