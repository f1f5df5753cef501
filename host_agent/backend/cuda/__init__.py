"""Collectives of tensors on a GPU: their elements pass through memory of the host."""
