"""Which callers are there: those with calls in progress, and those that must call again soon.

When a caller dies, its calls end at once; a caller whose call was answered must call again soon.
Everything is in memory.
"""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from wiresum.controller.clock import Clock

# A caller whose call ended without an answer may only have lost its connection: it then calls again
# within about a second.
_GRACE_S = 2.0


@dataclass
class Presence:
    """The callers of one kind about one job. After ``expiry_s`` of silence a caller is gone."""

    clock: Clock
    expiry_s: float
    _calling: dict[Hashable, set[object]] = field(default_factory=dict)
    """The calls in progress of each caller that has any."""
    _until: dict[Hashable, float] = field(default_factory=dict)
    """When each caller that has no call in progress counts as gone."""

    @property
    def calling(self) -> bool:
        """Whether anybody has a call in progress."""
        return bool(self._calling)

    @property
    def expected(self) -> bool:
        """Whether anybody is expected to call again."""
        now = self.clock.now()
        return any(until > now for until in self._until.values())

    def expect(self, who: Hashable) -> None:
        """``who`` is about to call for the first time."""
        self._until.setdefault(who, self.clock.now() + self.expiry_s)

    @contextmanager
    def call(self, who: Hashable) -> Iterator[None]:
        """A call of ``who`` is in progress."""
        this = object()
        self._calling.setdefault(who, set()).add(this)
        self._until.pop(who, None)
        stays_s = _GRACE_S
        try:
            yield
            stays_s = self.expiry_s
        finally:
            calls = self._calling.get(who, set())
            if this in calls:  # else the caller has left meanwhile
                calls.remove(this)
                if not calls:
                    del self._calling[who]
                    self._until[who] = self.clock.now() + stays_s

    def left(self, who: Hashable) -> None:
        """``who`` has left, and waits for nothing any more."""
        self._calling.pop(who, None)
        self._until.pop(who, None)
