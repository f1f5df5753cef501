"""What torch calls, by two groups of entry points, to find the backend.

``torch.backends``: :func:`register`, at the end of every ``import torch``. An exception there would
break ``import torch`` for everyone in this environment: it never raises.
``TORCH_DEVICE_BACKEND_AUTOLOAD=0`` switches it off.

``torch.distributed.backends`` (torch 2.14 and later): :func:`register_by_name`, when a script names
the backend and nobody has registered it.
"""

import logging
import os


def register() -> None:
    """Make the backend ``"wiresum"`` known; under WIRESUM_AS_DEFAULT=1 make it the default."""
    try:
        from wiresum.host_agent.backend.registration import register_backend

        register_backend()
        if os.environ.get("WIRESUM_AS_DEFAULT") == "1":
            from wiresum.host_agent.backend.as_default import install

            install()
    except Exception:
        logging.getLogger("wiresum").warning(
            "wiresum: the torch.distributed backend could not be registered", exc_info=True
        )
    if "WIRESUM_MEASURE" in os.environ:
        _observe()
    try:
        _try_remedies()
    except Exception:
        logging.getLogger("wiresum").warning(
            "wiresum: no remedy can be tried, or tuned", exc_info=True
        )


def _observe() -> None:
    try:
        from wiresum.host_agent.observe.start import install

        install()
    except Exception:
        logging.getLogger("wiresum").warning(
            "wiresum: this process cannot be measured", exc_info=True
        )


def _try_remedies() -> None:
    if os.environ.get("WIRESUM_REMEDY"):
        from wiresum.host_agent.remedies import hooks

        hooks.install()
    if os.environ.get("WIRESUM_TRIAL"):
        from wiresum.host_agent.trial import recorder

        recorder.install()
    if os.environ.get("WIRESUM_TUNE"):
        from wiresum.host_agent.tune import steps

        steps.install()


def register_by_name() -> None:
    """Make the backend ``"wiresum"`` known. Raises what keeps it from being registered."""
    from wiresum.host_agent.backend.registration import register_backend

    register_backend()
