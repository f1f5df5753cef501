"""A store in one SQLite file."""

from wiresum.controller.state.sqlite.store import MEMORY, SqliteStore

__all__ = ["MEMORY", "SqliteStore"]
