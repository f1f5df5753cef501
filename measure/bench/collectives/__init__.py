"""``wiresum bench collectives``: every collective of the torch backend beside gloo's."""
