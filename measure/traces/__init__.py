"""Reads traces of torch.profiler: how much a job communicates, and how long it waits for it."""
