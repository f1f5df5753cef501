"""A running controller without its network face: commits plans, and lets calls wait for news."""
