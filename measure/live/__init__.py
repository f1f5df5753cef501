"""Runs a job whose ranks record some of their steps: ``wiresum measure -- COMMAND``."""
