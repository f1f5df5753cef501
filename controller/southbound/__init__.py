"""What switches shall hold, and how they come to hold it."""
