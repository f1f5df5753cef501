"""``wiresum demo``: the same training over gloo and over the switch, side by side."""
