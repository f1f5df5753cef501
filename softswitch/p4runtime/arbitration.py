"""Who is the primary controller: the highest election id among the live streams, as in BMv2."""

import asyncio

from finsy.proto import p4r, rpc_code

from wiresum.softswitch.p4runtime.status import exhausted, invalid, precondition

MAX_CONTROLLERS = 16
MAX_QUEUED = 4096
"""Messages that may wait for a controller that reads slowly; packet-ins beyond are dropped."""


class Controller:
    """One open stream."""

    def __init__(self) -> None:
        self.election_id: int | None = None
        self.live = False
        self.outgoing: asyncio.Queue[p4r.StreamMessageResponse | None] = asyncio.Queue()
        self.dropped = 0

    def send(self, message: p4r.StreamMessageResponse, *, droppable: bool = False) -> None:
        """Queue a message; a droppable one is dropped and counted when too many wait."""
        if droppable and self.outgoing.qsize() >= MAX_QUEUED:
            self.dropped += 1
            return
        self.outgoing.put_nowait(message)

    def close(self) -> None:
        """End the outgoing messages, behind those that wait."""
        self.outgoing.put_nowait(None)


def to_int(election_id: p4r.Uint128) -> int:
    """Return an election id as one number."""
    return election_id.high << 64 | election_id.low


class Arbiter:
    """The live controllers of one device (there is one role, the default one)."""

    def __init__(self, device_id: int) -> None:
        self._device_id = device_id
        self._controllers: list[Controller] = []

    @property
    def primary(self) -> Controller | None:
        """The live controller with the highest election id; one without an id never is."""
        candidates = [c for c in self._controllers if c.election_id is not None]
        return max(candidates, key=lambda c: c.election_id or 0, default=None)

    @property
    def standing(self) -> tuple[int, bool]:
        """How many controllers are live, and whether one of them is primary."""
        return len(self._controllers), self.primary is not None

    def is_primary(
        self, message: p4r.WriteRequest | p4r.SetForwardingPipelineConfigRequest
    ) -> bool:
        """Whether a request carries the primary's election id."""
        primary = self.primary
        return (
            primary is not None
            and message.HasField("election_id")
            and to_int(message.election_id) == primary.election_id
        )

    def update(self, controller: Controller, request: p4r.MasterArbitrationUpdate) -> None:
        """Handle a MasterArbitrationUpdate; raises what ends the stream."""
        if request.role.name or request.role.HasField("config"):
            raise precondition("roles are not supported: leave the role unset")
        election_id = to_int(request.election_id) if request.HasField("election_id") else None
        others = [c for c in self._controllers if c is not controller]
        if election_id is not None and any(c.election_id == election_id for c in others):
            # BMv2's words; finsy recognises them and tries another id.
            raise invalid("Election id already exists")
        if not controller.live and len(others) >= MAX_CONTROLLERS:
            raise exhausted("Too many connections")
        before = self._standing()
        if not controller.live:
            controller.live = True
            self._controllers.append(controller)
        controller.election_id = election_id
        if self._standing() != before:
            self._notify_all()
        else:
            self._notify(controller)

    def remove(self, controller: Controller) -> None:
        """Forget a controller whose stream has ended."""
        if not controller.live:
            return
        before = self._standing()
        controller.live = False
        self._controllers.remove(controller)
        if self._standing() != before:
            self._notify_all()

    def _standing(self) -> tuple[int, int | None]:
        primary = self.primary
        return (id(primary), primary.election_id if primary else None)

    def _notify_all(self) -> None:
        for controller in self._controllers:
            self._notify(controller)

    def _notify(self, controller: Controller) -> None:
        primary = self.primary
        message = p4r.StreamMessageResponse()
        update = message.arbitration
        update.device_id = self._device_id
        if primary is None:
            update.status.code = rpc_code.NOT_FOUND
            update.status.message = "No primary"
        else:
            election_id = primary.election_id or 0
            update.election_id.high = election_id >> 64
            update.election_id.low = election_id & (1 << 64) - 1
            if primary is controller:
                update.status.code = rpc_code.OK
                update.status.message = "Is primary"
            else:
                update.status.code = rpc_code.ALREADY_EXISTS
                update.status.message = "Is backup"
        controller.send(message)
