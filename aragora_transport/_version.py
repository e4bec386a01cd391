"""The version, where the package itself may read it."""

__version__ = "0.1.0"
