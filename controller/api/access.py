"""Tells callers apart by their tokens."""

import secrets
from dataclasses import dataclass

from wiresum.controller import lines
from wiresum.controller.errors import ControllerError
from wiresum.controller.rules.callers import Caller
from wiresum.controller.state.store import Store
from wiresum.controller.tokens import hashed


@dataclass(frozen=True)
class Access:
    """Tells callers apart by their tokens. Methods raise :class:`ControllerError`."""

    store: Store
    fixed_admin: str = ""
    """The hash of an admin's token that counts instead of the store's."""

    def caller(self, token: str) -> Caller:
        """The caller that holds ``token``. Raises UNAUTHENTICATED."""
        if not token:
            raise ControllerError(
                "UNAUTHENTICATED",
                lines.NO_TOKEN.of(),
            )
        digest = hashed(token)
        admin = self.fixed_admin or self.store.snapshot().admin_token()
        if admin is not None and secrets.compare_digest(digest, admin):
            return Caller(admin=True)
        tenant = self.store.snapshot().tenant_of_token(digest)
        if tenant is not None:
            return Caller(tenant=tenant)
        job = self.store.snapshot().job_of_token(digest)
        if job is not None:
            return Caller(job=job, token=digest)
        raise ControllerError(
            "UNAUTHENTICATED",
            lines.UNKNOWN_TOKEN.of(),
        )
