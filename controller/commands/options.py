"""The options that all commands share: the controller, the token and the authority to trust."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from wiresum.common.command_line import Option
from wiresum.controller.client.address import DEFAULT_CONTROLLER

if TYPE_CHECKING:
    from wiresum.controller.client import ControllerClient

Json = Annotated[bool, Option("--json", help="Print JSON instead of a table.")]


@dataclass(frozen=True)
class ControllerOptions:
    """The options of all commands that call a controller: its address, the token, the authority."""

    controller: Annotated[
        str,
        Option(
            "--controller",
            envvar="WIRESUM_CONTROLLER",
            metavar="HOST:PORT",
            help="Where the controller listens; http://HOST:PORT if without TLS; with commas "
            "between several that share a store.",
        ),
    ] = DEFAULT_CONTROLLER
    token_file: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="File with your token  [default: WIRESUM_TOKEN, or this user's own controller's "
            "admin token]",
        ),
    ] = None
    ca: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Authority of the controller's certificate  [default: WIRESUM_CA, or this "
            "user's own controller's]",
        ),
    ] = None

    def connect(self) -> "ControllerClient":
        """Return a client as the options say. Raises ``OptionError`` and ``ControllerError``."""
        from wiresum.controller.client import ControllerClient
        from wiresum.controller.client.credentials import chosen_token

        token = chosen_token(self.controller, self.token_file, self.ca)
        return ControllerClient(
            self.controller, token=token, ca=None if self.ca is None else str(self.ca)
        )


THIS_USERS = ControllerOptions()
"""The controller that is meant where no option says which."""
