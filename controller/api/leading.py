"""A controller among several of one store: it follows, and leads when no other does."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from wiresum.controller import lines
from wiresum.controller.api.reception import Reception
from wiresum.controller.errors import NotLeading, StoreFailed
from wiresum.controller.office.office import Office

if TYPE_CHECKING:
    from wiresum.controller.state.postgres.election import Candidate
    from wiresum.controller.state.postgres.store import PostgresStore

log = logging.getLogger(__name__)

# How often a follower tries to lead, and the leader confirms that it does.
_PAUSE_S = 0.5

# How long a leader that cannot write to the store lets other controllers try to lead.
_REST_S = 2.0

# How long the end of a leadership may take; the switches' connections may have to time out.
_FAREWELL_S = 5.0


class Leading:
    """Follows and leads, in turn; ``reception`` serves while it leads, and refuses otherwise."""

    def __init__(
        self,
        candidate: "Candidate",
        address: str,
        office_for: "Callable[[PostgresStore], Office]",
        opened: Callable[[Office], Awaitable[None]],
        fixed_admin: str = "",
    ) -> None:
        """``address`` is where clients find this controller.

        ``office_for`` makes the office of a leadership, which is then started; ``opened`` is called
        when it has been. ``fixed_admin`` is as in :class:`Reception`.
        """
        self.reception = Reception(self.refusal)
        self.settled = asyncio.Event()
        """Set when it is known for the first time who leads."""
        self._candidate = candidate
        self._address = address
        self._office_for = office_for
        self._opened = opened
        self._fixed_admin = fixed_admin
        self._trouble = ""

    @property
    def leader(self) -> str:
        """The address of the leader, if it is known."""
        return self._candidate.leader

    def refusal(self) -> NotLeading:
        """Why this controller serves no calls."""
        leader = self.leader
        if self._trouble:
            line = lines.NO_STORE_TO_ASK.of(address=self._address, why=self._trouble)
        elif leader and leader != self._address:
            line = lines.DOES_NOT_LEAD.of(address=self._address, leader=leader)
        else:
            line = lines.NOBODY_LEADS_YET.of(address=self._address)
        return NotLeading("UNAVAILABLE", line, retry_after_s=_PAUSE_S)

    async def run(self) -> None:
        """Follow and lead until cancelled.

        Raises ``StoreError`` if this controller can never lead, and :class:`StoreFailed` if the
        store cannot be reached the first time.
        """
        try:
            while True:
                store = await self._follow()
                try:
                    await self._lead(store)
                except NotLeading:
                    pass  # it was over before it had begun
                except StoreFailed as error:
                    if not self.settled.is_set():
                        raise
                    log.error("%s", error)
                    await asyncio.sleep(_REST_S)  # another may fare better
        finally:
            self._candidate.close()

    async def _follow(self) -> "PostgresStore":
        while True:
            try:
                store = await asyncio.to_thread(self._candidate.run)
            except StoreFailed as error:
                if not self.settled.is_set():
                    raise
                self._set_trouble(str(error))
            else:
                self._set_trouble("")
                if store is not None:
                    return store
                self.settled.set()
            await asyncio.sleep(_PAUSE_S)

    async def _lead(self, store: "PostgresStore") -> None:
        log.warning("this controller leads from now on (term %d)", store.term.number)
        holding = asyncio.create_task(self._hold(store), name="leadership")
        office: Office | None = None
        try:
            office = self._office_for(store)
            await office.start()
            self.reception.open(office, self._fixed_admin)
            await self._opened(office)
            self.settled.set()
            await holding
        finally:
            holding.cancel()
            self.reception.close()
            if office is not None:
                await asyncio.wait([asyncio.create_task(office.stop())], timeout=_FAREWELL_S)
            why = store.term.lost
            store.close()
            if why:
                log.warning("this controller does not lead any more: %s", why)

    async def _hold(self, store: "PostgresStore") -> None:
        """Return when the leadership is over."""
        while await asyncio.to_thread(store.term.confirm):
            await asyncio.sleep(_PAUSE_S)

    def _set_trouble(self, trouble: str) -> None:
        if trouble and not self._trouble:
            log.error("%s", trouble)
        self._trouble = trouble
