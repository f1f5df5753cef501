"""Puts torch's DDP hooks on scripts that stay as they are."""
