"""What callers wait for: the long polls, and the tasks of a running controller."""
