"""What several test folders share: frames, switches under test, models."""
