"""The embedded switch held to BMv2: the same packets and table writes into both."""
