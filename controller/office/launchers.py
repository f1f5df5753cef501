"""The launchers of jobs: those that share a name share a job, which ends with the last of them.

Each caller that gets a job gets a token of its own, which identifies it. Its heartbeats, which name
no rank, keep the job. A launcher that has died silently counts as gone after its last heartbeat.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from wiresum.controller.clock import Clock
from wiresum.controller.office.presence import Presence
from wiresum.controller.state.model import Job


@dataclass
class _Shared:
    """The launchers of one job."""

    presence: Presence
    """By the hashes of their tokens."""
    requests: dict[str, str] = field(default_factory=dict)
    """The token that was last given for a request: one whose answer was lost counts once."""


class Launchers:
    """The launchers of all jobs. Everything is in memory: launchers are known by their calls."""

    def __init__(self, clock: Clock, heartbeat_s: float, expiry_s: float) -> None:
        """``heartbeat_s``: how often a launcher calls; after ``expiry_s`` of silence it is gone."""
        self._clock = clock
        self._expiry_s = expiry_s
        # Those of jobs from before a restart of the controller call again before then.
        self._began = clock.now()
        self._known_from = self._began + 2 * heartbeat_s
        self._jobs: dict[str, _Shared] = {}

    def given(self, job_id: str, token: str, request: str) -> None:
        """A caller gets the job for its ``request`` (empty: without an id), with this token."""
        shared = self._shared(job_id)
        if request:
            before = shared.requests.get(request)
            if before is not None:
                shared.presence.left(before)
            shared.requests[request] = token
        shared.presence.expect(token)

    def token_of(self, job_id: str, request: str) -> str:
        """The token that was given for a ``request``; empty if none was, or it is not known."""
        return self._shared(job_id).requests.get(request, "")

    @contextmanager
    def call(self, job_id: str, token: str) -> Iterator[None]:
        """A heartbeat of a launcher is in progress."""
        with self._shared(job_id).presence.call(token):
            yield

    def leave(self, job: Job, token: str, tokens: int) -> bool:
        """A launcher leaves; whether it was the last one. The job has so many ``tokens`` in all."""
        presence = self._shared(job.id).presence
        presence.left(token)
        if presence.calling or presence.expected:
            return False
        known = job.created >= self._began or self._clock.now() >= self._known_from
        return known or tokens < 2

    def forget(self, job_id: str) -> None:
        """The job is over."""
        self._jobs.pop(job_id, None)

    def keep(self, job_ids: Iterable[str]) -> None:
        """Forget all jobs but these: launchers may also call about jobs that are over."""
        live = set(job_ids)
        self._jobs = {job_id: shared for job_id, shared in self._jobs.items() if job_id in live}

    def _shared(self, job_id: str) -> _Shared:
        shared = self._jobs.get(job_id)
        if shared is None:
            shared = self._jobs[job_id] = _Shared(Presence(self._clock, self._expiry_s))
        return shared
