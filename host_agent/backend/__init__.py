"""The ``torch.distributed`` backend ``"wiresum"``: all-reduces on the wire, the rest by gloo.

``registration`` is all that ``import torch`` loads; the rest is imported when a group is made.
"""
