"""Tables and a plot from what the benchmarks have written."""
