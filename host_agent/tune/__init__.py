"""Tells the tuning of this process what the training does."""
