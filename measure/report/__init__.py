"""Tables and a plot from the benchmarks' JSON."""
