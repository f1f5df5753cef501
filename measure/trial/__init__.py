"""`wiresum trial`: the user's own script, some steps per remedy, in one table."""
