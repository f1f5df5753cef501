"""``wiresum testbed soak``: trainings across a rack in which random things fail."""
