"""What a user decides with: benchmarks, the demo, and reports of both."""
