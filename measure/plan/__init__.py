"""``wiresum plan``: racks, slots and uplinks for a set of jobs, and what collisions cost."""
