"""Chooses the field while a job trains; all ranks choose alike."""
