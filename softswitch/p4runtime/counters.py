"""CounterEntry: the cells of indirect counters."""

from collections.abc import Iterator

from finsy.proto import p4r

from wiresum.softswitch.p4runtime.dataplane import CounterValue, DataplaneControl
from wiresum.softswitch.p4runtime.schema import Counter, Schema
from wiresum.softswitch.p4runtime.status import invalid, out_of_range
from wiresum.softswitch.p4runtime.table_codec import decode_counter_data, encode_counter


class CounterEntries:
    """The indirect counters of one running program."""

    def __init__(self, schema: Schema, dataplane: DataplaneControl) -> None:
        self._schema = schema
        self._dataplane = dataplane

    def _counter(self, counter_id: int) -> Counter:
        counter = self._schema.counters.get(counter_id)
        if counter is not None:
            return counter
        if counter_id in self._schema.direct_counters:
            raise invalid("CounterEntry names a direct counter: use DirectCounterEntry")
        raise invalid(f"no counter has the id {counter_id}")

    def _range(self, counter: Counter, entry: p4r.CounterEntry) -> tuple[int, int]:
        """Return the first cell that ``entry`` names, and how many."""
        if not entry.HasField("index"):
            return 0, counter.size
        index = entry.index.index
        if index < 0:
            raise invalid(f"counter {counter.name!r}: the index {index} is negative")
        if index >= counter.size:
            raise out_of_range(f"counter {counter.name!r} has {counter.size} cells, not {index}")
        return index, 1

    def write(self, kind: "p4r.Update.Type.ValueType", entry: p4r.CounterEntry) -> None:
        """Set one cell, or all where no index is given; raises P4RuntimeError."""
        counter = self._counter(entry.counter_id)
        if kind != p4r.Update.MODIFY:
            raise invalid("a counter can only be changed by MODIFY")
        first, count = self._range(counter, entry)
        if entry.HasField("data"):
            value = decode_counter_data(entry.data)
            self._dataplane.write_counters(counter.name, first, count, value)

    def read(self, request: p4r.CounterEntry) -> Iterator[p4r.CounterEntry]:
        """Yield the cells that the request selects; raises P4RuntimeError."""
        counters = (
            [self._counter(request.counter_id)]
            if request.counter_id
            else list(self._schema.counters.values())
        )
        for counter in counters:
            first, count = self._range(counter, request)
            values = self._dataplane.read_counters(counter.name, first, count)
            for index, value in enumerate(values, first):
                yield _encode(counter, index, value)


def _encode(counter: Counter, index: int, value: CounterValue) -> p4r.CounterEntry:
    return p4r.CounterEntry(
        counter_id=counter.id,
        index=p4r.Index(index=index),
        data=encode_counter(value),
    )
