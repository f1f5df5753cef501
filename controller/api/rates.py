"""Limits of calls for each caller, so that no tenant takes the controller's time from the others.

Every caller has a bucket of calls that fills at a steady rate up to a limit. A call takes one from
it; a call with a long answer takes more when it ends. A caller with an empty bucket is told when to
ask again.

- A tenant's own calls share one bucket; those of its jobs, which are mostly heartbeats, share
  another that grows with its live workers.
- The admin is not limited.
- Calls without a valid token share a bucket per address, so that trying tokens from one address
  slows down no other.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from wiresum.controller import lines
from wiresum.controller.errors import ControllerError
from wiresum.controller.rules.callers import Caller
from wiresum.controller.state.store import Store

TENANT_RATE = 50.0
"""The rate of a tenant's own calls; calls per second."""
TENANT_BURST = 1000.0
"""The most of them at once."""

# Of a tenant's jobs: four times what their heartbeats need, and something for all else.
_JOBS_RATE = 100.0
_BEATS = 4.0
_JOBS_BURST_S = 10.0

STRANGER_RATE = 20.0
STRANGER_BURST = 1000.0

_LONGEST_S = 5.0
_BUCKETS = 4096
_FRESH_S = 1.0


@dataclass
class _Bucket:
    level: float
    time: float


@dataclass
class Rates:
    """The buckets. Methods raise :class:`ControllerError` RESOURCE_EXHAUSTED, with a time.

    ``heartbeat_s``: how often workers and launchers are told to call.
    """

    store: Store
    heartbeat_s: float
    now: Callable[[], float] = time.monotonic
    _buckets: "OrderedDict[tuple[str, str], _Bucket]" = field(default_factory=OrderedDict)
    _jobs_rates: dict[str, tuple[float, float]] = field(default_factory=dict)

    def call(self, caller: Caller, calls: float = 1.0) -> None:
        """A call of ``caller`` begins, which is as much work as so many."""
        if caller.admin:
            return
        if caller.tenant:
            key, rate, burst = ("tenant", caller.tenant), TENANT_RATE, TENANT_BURST
        else:
            tenant = self.store.snapshot().tenant_of_job(caller.job) or ""
            rate = self._jobs_rate(tenant)
            key, burst = ("jobs of tenant", tenant), max(TENANT_BURST, _JOBS_BURST_S * rate)
        self._take(key, rate, burst, calls)

    def cost(self, caller: Caller, calls: float) -> None:
        """The call was as much work as so many more."""
        if caller.tenant and ("tenant", caller.tenant) in self._buckets:
            self._buckets["tenant", caller.tenant].level -= calls

    def stranger(self, peer: str) -> None:
        """A call from ``peer``, gRPC's name for its address, has no token that counts."""
        self._take(("callers at", _host(peer)), STRANGER_RATE, STRANGER_BURST, 1.0)

    # ----

    def _take(self, key: tuple[str, str], rate: float, burst: float, calls: float) -> None:
        now = self.now()
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(burst, now)
            if len(self._buckets) > _BUCKETS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        bucket.level = min(burst, bucket.level + rate * max(0.0, now - bucket.time))
        bucket.time = now
        if bucket.level < 1.0:
            wait_s = min(_LONGEST_S, (1.0 - bucket.level) / rate)
            what, name = key
            raise ControllerError(
                "RESOURCE_EXHAUSTED",
                lines.TOO_MANY_CALLS.of(callers=what, name=name, per_second=rate, wait_s=wait_s),
                retry_after_s=wait_s,
            )
        bucket.level -= calls

    def _jobs_rate(self, tenant: str) -> float:
        now = self.now()
        at, rate = self._jobs_rates.get(tenant, (float("-inf"), 0.0))
        if now - at > _FRESH_S:
            callers = self.store.snapshot().callers_of(tenant)
            rate = _JOBS_RATE + _BEATS * callers / max(self.heartbeat_s, 0.01)
            if len(self._jobs_rates) > _BUCKETS:
                self._jobs_rates.clear()
            self._jobs_rates[tenant] = (now, rate)
        return rate


def _host(peer: str) -> str:
    """``ipv4:10.0.0.1:4711`` without the port, which is another for each connection."""
    return peer.rpartition(":")[0] if peer.startswith("ip") else peer
