"""A client's credentials, the authority that it trusts, and this user's default files."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from wiresum.common import places
from wiresum.controller import lines


@dataclass(frozen=True)
class Credentials:
    """Who the caller is, and how it knows that it talks to the controller.

    ``token`` goes with every call. ``ca``, ``cert`` and ``key`` are PEM files: the authority that
    the controller's certificate must come from (none: those that gRPC trusts by itself), and
    the caller's own certificate where the controller asks for one.
    """

    token: str = field(default="", repr=False)
    ca: str = ""
    cert: str = ""
    key: str = ""

    @classmethod
    def given(cls, token: str | None, ca: str | None, cert: str | None, key: str | None) -> Self:
        """What is None comes from WIRESUM_TOKEN, WIRESUM_CA, WIRESUM_CERT and WIRESUM_KEY."""

        def choose(value: str | None, variable: str) -> str:
            return os.environ.get(variable, "") if value is None else value

        return cls(
            choose(token, "WIRESUM_TOKEN").strip(),
            choose(ca, "WIRESUM_CA"),
            choose(cert, "WIRESUM_CERT"),
            choose(key, "WIRESUM_KEY"),
        )


def state_folder() -> Path:
    """Where this user's own controller keeps its store: ``$XDG_STATE_HOME/wiresum``.

    Raises ``NoHome``.
    """
    state = places.state_folder()
    if state is None:
        raise places.NoHome(lines.NO_HOME.of())
    return state / "wiresum"


def default_store_file() -> Path:
    """The store of this user's own controller. Raises ``NoHome``."""
    return state_folder() / "controller.sqlite"


def default_token_file() -> Path:
    """Where this user's own controller writes its admin's token. Raises ``NoHome``."""
    return state_folder() / "controller.sqlite.admin-token"


def default_ca_file() -> Path:
    """The authority that this user's own controller has made. Raises ``NoHome``."""
    return state_folder() / "tls" / "ca.pem"


def own_ca_file() -> Path | None:
    """The same if it exists; None for a user without such a file, or without a home."""
    try:
        file = default_ca_file()
    except places.NoHome:
        return None
    return file if places.is_file(file) else None
