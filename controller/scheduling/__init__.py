"""Who gets which slots: pure functions, with their proofs."""
