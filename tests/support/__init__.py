"""Helpers of several test folders: frames, switches under test, models."""
