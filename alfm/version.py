"""The version of this package, read where results depend on it."""

__version__ = "0.1.0"
