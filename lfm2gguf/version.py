"""The version, which is written here and nowhere else: pyproject.toml and the release read it."""

__version__ = "0.1.0"
