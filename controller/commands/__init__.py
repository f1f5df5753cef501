"""The controller's part of the command line."""
