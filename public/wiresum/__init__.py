"""What ``import wiresum`` gives to a training script. It imports nothing until it is used."""

from typing import Any

__all__ = ["report"]


def report(*, loss: Any) -> None:
    """Tell a trial the loss of this step.

    ``loss`` is a number, or a tensor of one element, of this rank or of all: the mean over the
    ranks that report is used. Does nothing, and does not read the tensor, where nobody listens.
    Raises ``TypeError`` or ``ValueError`` for anything that is no number.
    """
    from wiresum.host_agent.reported import report

    report(loss)
