"""What torch calls at the end of every ``import torch`` (entry point group ``torch.backends``).

An exception here would break ``import torch`` for everyone in this environment: it never raises.
``TORCH_DEVICE_BACKEND_AUTOLOAD=0`` switches it off; then call :func:`register` yourself.
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
