"""What torch calls, by two groups of entry points, to find the backend.

``torch.backends``: :func:`register`, at the end of every ``import torch``. An exception there would
break ``import torch`` for everyone in this environment: it never raises.
``TORCH_DEVICE_BACKEND_AUTOLOAD=0`` switches it off.

``torch.distributed.backends`` (torch 2.14 and later): :func:`register_by_name`, when a script names
the backend and nobody has registered it.
"""

import importlib
import logging
import os

_ROOMS = {
    "WIRESUM_MEASURE": ("observe.start", "this process cannot be measured"),
    "WIRESUM_REMEDY": ("remedies.hooks", "no hook can be put on the models"),
    "WIRESUM_TRIAL": ("trial.recorder", "this process cannot take part in a trial"),
    "WIRESUM_TUNE": ("tune.steps", "the field cannot be tuned"),
}
"""By the variable that asks for it: a module with ``install()``, and what fails without it."""


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
    for variable, (module, fault) in _ROOMS.items():
        if os.environ.get(variable):
            try:
                importlib.import_module(f"wiresum.host_agent.{module}").install()
            except Exception:
                logging.getLogger("wiresum").warning("wiresum: %s", fault, exc_info=True)


def register_by_name() -> None:
    """Make the backend ``"wiresum"`` known. Raises what keeps it from being registered."""
    from wiresum.host_agent.backend.registration import register_backend

    register_backend()
