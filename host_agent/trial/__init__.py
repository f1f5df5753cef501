"""Inside the workers of `wiresum trial`: runs a number of steps, records them, ends the script."""
