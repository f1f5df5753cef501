"""Tools for a user's decision: benchmarks, their report, and the demo."""
