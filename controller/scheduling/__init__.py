"""Decides which job gets which slots: pure functions, with their proofs."""
