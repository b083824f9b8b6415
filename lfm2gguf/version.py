"""The version: the one place that states it (pyproject.toml reads it here)."""

__version__ = "0.1.0"
