"""Where plans are committed: the one place that writes to the store."""

from dataclasses import dataclass

from wiresum.controller.clock import Clock
from wiresum.controller.state.plan import Plan
from wiresum.controller.state.store import Snapshot, Store


@dataclass(frozen=True)
class Desk:
    """A store and a clock. The rules are asked with a state and a time, and answer with a plan."""

    store: Store
    clock: Clock

    @property
    def state(self) -> Snapshot:
        """What is stored now."""
        return self.store.snapshot()

    def now(self) -> float:
        """The time."""
        return self.clock.now()

    def commit(self, plan: Plan) -> None:
        """Write all of a plan, or nothing. Raises ``StoreFailed``."""
        self.store.commit(plan)
