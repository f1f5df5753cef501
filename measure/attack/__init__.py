"""Measures the cost of an attacker's flood to a job on the same switch."""
