"""Child processes: none outlives the process that started it."""
