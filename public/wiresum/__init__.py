"""What ``import wiresum`` gives to a training script. It imports nothing until it is used."""

from typing import Any

__all__ = ["codecs", "report", "tune"]


def codecs(workers: int = 2) -> list[Any]:
    """All codecs, for so many workers: rows with ``name``, ``bytes_per_element``, ``level``, …

    ``name`` is what ``wiresum run --codec`` takes. See ``wiresum codec list``.
    """
    from wiresum.host_agent.hooks.catalogue import codecs

    return list(codecs(workers))


def report(*, loss: Any) -> None:
    """Tell a trial, or a run that is tuned, the loss of this step.

    ``loss`` is a number, or a tensor of one element, of this rank or of all. A trial takes the mean
    over the ranks that report; in a run that is tuned, each rank judges by its own. Does nothing,
    and does not read the tensor, where nobody listens. Raises what ``float(loss)`` raises.
    """
    from wiresum.host_agent.reported import report

    report(loss)


def tune(
    *,
    within: float = 0.01,
    error: float = 0.1,
    steps: int = 20,
    carrier: str = "auto",
    h: int | str = "own",
    drift: float = 0.02,
) -> None:
    """Let the ranks choose field and carrier while they train, as ``wiresum run --tune`` does.

    Call it on all ranks before ``init_process_group("wiresum")``; without ``WIRESUM_CONTROLLER``,
    the ranks then sum without a switch. ``within``: the largest relative rise of the reported loss;
    ``error``: the largest error of a tensor, relative to its norm; ``steps``: optimizer steps
    between two decisions; ``carrier``: ``"fixed"`` chooses none. ``h``: the largest H of LocalSGD
    and DiLoCo, or ``"auto"``: the script's own is; ``drift``: the largest drift of the ranks then.
    Raises ``WiresumError``.
    """
    from wiresum.host_agent.agent.tuning.wish import Wish
    from wiresum.host_agent.tune.steps import tune

    tune(Wish(within, error, steps, carrier, str(h), drift))
