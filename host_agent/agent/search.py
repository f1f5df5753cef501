"""Looks for a job while the training goes on over its ranks: waits in the queue, asks again."""

import logging
import secrets
import threading
from dataclasses import replace

from wiresum.controller.client import ControllerClient, OnFull, away
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent.agent.control import connect, part_request
from wiresum.host_agent.environment import Environment

log = logging.getLogger("wiresum")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Between two requests of which the first has failed; doubles with each; seconds."""

_NO_ROOM = ("RESOURCE_EXHAUSTED", "FAILED_PRECONDITION")
"""Codes of refusals that other jobs, quotas and switches may undo."""


class JobSearch:
    """One search. :meth:`stop` may be called from any thread."""

    def __init__(
        self,
        where: Environment,
        name: str = "",
        lent: tuple[str, str] | None = None,
        share: float = 0.0,
    ) -> None:
        """``where`` has the tenant's token, and says what to ask for; ``name`` is the job's.

        ``lent``: a job and its token, of which a part with this ``share`` of the slots is looked
        for.
        """
        self._where = where
        self._name = name
        self._lent = lent
        self._share = share
        self._token = lent[1] if lent else where.tenant_token
        self._request = ""  # the id of the latest
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._client: ControllerClient | None = None
        self._place: pb.Job | None = None

    def find(self) -> pb.Job | None:
        """The job, once it has slots; None after :meth:`stop`.

        While no switch has room, one call waits in the controller's queue; while the controller
        cannot be reached, it is asked again, with pauses of up to ``LONGEST_PAUSE_S``. Raises
        ``ControllerError`` for any other refusal, and where ``queue_timeout_s`` is over.
        """
        pause, said = FIRST_PAUSE_S, ""
        while not self._stop.is_set():
            try:
                job = self._ask()
            except ControllerError as error:
                if self._stop.is_set():
                    return None
                if not self._may_come(error):
                    raise
                new = self._lent is not None and str(error) != said
                said = str(error)
                log.log(logging.INFO if new else logging.DEBUG, "wiresum: no job yet: %s", said)
            else:
                if not self._stop.is_set():
                    return job
                self._give_up(job)
            self._stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        return None

    def stop(self) -> None:
        """End the search, and give up the place in the queue."""
        with self._lock:
            self._stop.set()
            client, place = self._client, self._place
        if client is not None:
            client.close()
        if place is not None:
            self._give_up(place)

    # ----

    def _ask(self) -> pb.Job:
        where, request = self._where, self._where.request
        # A job that takes fewer slots does not wait for more.
        on_full = OnFull.SMALLER if request.on_full is OnFull.SMALLER else OnFull.WAIT
        request = replace(request, on_full=on_full, started=True)
        with connect(where, self._token) as client:
            with self._lock:
                self._client, self._request = client, secrets.token_hex(16)
                if self._stop.is_set():
                    client.close()
            try:
                parent, token = self._lent or ("", "")
                request = part_request(client, request, self._lent, self._share)
                return client.create_job(
                    self._name,
                    request,
                    on_queue=self._queued,
                    request_id=self._request,
                    parent=parent,
                    parent_token=token,
                )
            finally:
                with self._lock:
                    self._client = self._place = None

    def _queued(self, job: pb.Job) -> None:
        if self._lent is not None and self._place is None:
            log.info("wiresum: part %s of the job waits for slots", job.name)
        with self._lock:
            self._place = job

    def _may_come(self, error: ControllerError) -> bool:
        if away(error):
            return True
        return error.code in _NO_ROOM and self._where.request.queue_timeout_s is None

    def _give_up(self, job: pb.Job) -> None:
        try:
            with connect(self._where, self._token) as client:
                client.release_job(job.id, job.token, request_id=self._request)
        except ControllerError:
            log.debug("wiresum: the place in the queue is left to expire", exc_info=True)
