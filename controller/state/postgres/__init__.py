"""A store in PostgreSQL, for several controllers of which one leads."""
