"""Which token a command sends: the one that is named, the environment's, or this user's own."""

import os
from pathlib import Path

from wiresum.common import places
from wiresum.controller import lines
from wiresum.controller.client.address import is_loopback, parse_addresses
from wiresum.controller.client.trust import default_token_file, own_ca_file
from wiresum.controller.errors import OptionError


def chosen_token(controller: str, token_file: Path | None, ca: Path | None) -> str | None:
    """The token that the options choose; None: as the environment says.

    On the controller's own host, its user need not name the admin's token. It goes only to a
    server that this user's own CA vouches for: a port of localhost may belong to another user, or
    to another machine at the end of a tunnel, with a certificate of another CA.
    """
    if token_file is not None:
        return read_token(token_file)
    local = all(
        is_loopback(address.endpoint.host) and not address.plaintext
        for address in parse_addresses(controller)
    )
    if local and ca is None and _trusts_own_ca_only():
        return local_admin_token()
    return None


def _trusts_own_ca_only() -> bool:
    """Whether a connection for which no CA is named is one under this user's own CA."""
    own, given = own_ca_file(), os.environ.get("WIRESUM_CA")
    try:
        return own is not None and (
            not given or places.expand(given).read_bytes() == own.read_bytes()
        )
    except OSError:
        return False


def read_token(path: Path) -> str:
    """The token in a file. Raises :class:`OptionError`."""
    try:
        return places.expand(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise OptionError(lines.TOKEN_FILE.of(path=path, why=reason)) from None


def local_admin_token() -> str | None:
    """The admin token of this user's own controller, unless WIRESUM_TOKEN says another.

    None, too, without the CA that such a controller makes: nothing would vouch for the server.
    """
    if os.environ.get("WIRESUM_TOKEN") or own_ca_file() is None:
        return None
    try:
        return default_token_file().read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
