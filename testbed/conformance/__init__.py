"""Compares the embedded switch with BMv2: both get the same packets and table writes."""
