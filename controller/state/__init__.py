"""What the controller knows, as values, and the store that keeps it."""
