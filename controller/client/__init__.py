"""The controller's client: synchronous, for host agents, launchers and the command line."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wiresum.controller.client.address import DEFAULT_CONTROLLER
    from wiresum.controller.client.channel import away
    from wiresum.controller.client.client import ControllerClient, add_switch_request
    from wiresum.controller.on_full import OnFull

__all__ = ["DEFAULT_CONTROLLER", "ControllerClient", "OnFull", "add_switch_request", "away"]


def __getattr__(name: str) -> Any:
    """Import gRPC and the stubs only where a client is used, and not for an address or a help."""
    if name == "DEFAULT_CONTROLLER":
        from wiresum.controller.client.address import DEFAULT_CONTROLLER

        return DEFAULT_CONTROLLER
    if name == "OnFull":
        from wiresum.controller.on_full import OnFull

        return OnFull
    if name == "away":
        from wiresum.controller.client.channel import away

        return away
    if name in __all__:
        from wiresum.controller.client import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
