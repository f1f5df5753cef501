"""A running controller without its network face: plans are committed, calls wait for news."""
