"""The desired tables of switches, and the loops that write them."""
