"""The worker engine in C++; ``engine/README.md`` says what lives there.

Errors raised by these functions are those of :mod:`wiresum.host_agent.errors`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Piece = tuple[int, int, str, bool, int | None, int, int, int, int]

BLOCK: int
"""Elements that share one exponent in a large tensor."""

SMALL: int
"""Most elements of a small tensor: each element has an exponent, and 32 bits, of its own."""

NONFINITE_CODE: int
"""Exponent code of a block that holds Inf or NaN."""

class Completion:
    """One finished collective: ``error`` and ``kind`` are None if it succeeded."""

    @property
    def ticket(self) -> int: ...
    @property
    def error(self) -> str | None:
        """One line, what went wrong: a :class:`wiresum.common.errors.LineText`."""
    @property
    def kind(self) -> str | None:
        """Name of the class in :mod:`wiresum.host_agent.errors`."""
    @property
    def nonfinite(self) -> list[tuple[int, int]]:
        """Elements that were left as they are: (first, count) of each run, in order.

        They are the blocks that held Inf or NaN on any rank, neighbours merged: the same list on
        all ranks. Empty without ``keep_nonfinite``, and where ``error`` is set.
        """

class StreamPosition:
    """How far one stream of an engine is, in chunks: absolute positions, from ``first_position``."""

    @property
    def oldest(self) -> int:
        """The oldest chunk without a result; equal to ``next`` if all that are open have one."""
    @property
    def next(self) -> int:
        """The first chunk that is not open yet."""
    @property
    def result_s(self) -> float | None:
        """Seconds since the last result; None if there was none yet.

        Time for which the process was stopped is left out.
        """
    @property
    def wait(self) -> tuple[int, int] | None:
        """The last WAIT: the chunk's position, and the ranks that the switch has it from, as bits.

        It is kept when the chunk's result comes: it says something of the present only while
        its position is not below ``oldest``.
        """
    @property
    def wait_s(self) -> float | None:
        """Seconds since that WAIT."""

class UdpSocket:
    """A bound UDP socket (IPv4) towards the switch; ``fd`` is its descriptor.

    ``gso``, ``gro``: hand trains of datagrams to the kernel, and take them from it, where it can.
    """

    def __init__(self, *, fd: int = -1, gso: bool = True, gro: bool = True) -> None: ...
    def replace(self, **changes: Any) -> UdpSocket:
        """A copy with other values."""
    @property
    def fd(self) -> int: ...
    @property
    def gso(self) -> bool: ...
    @property
    def gro(self) -> bool: ...

class ShmSocket:
    """A connection that :func:`shm_connect` has made; ``fd`` is its descriptor.

    If the switch hangs up, the engine connects again at ``path``, and asks for its old address,
    until ``switch_timeout_s`` is over. Without a path a hang-up is the end.
    """

    def __init__(self, *, fd: int = -1, path: str = "") -> None: ...
    def replace(self, **changes: Any) -> ShmSocket:
        """A copy with other values."""
    @property
    def fd(self) -> int: ...
    @property
    def path(self) -> str: ...

class Lease:
    """What the controller leased to this worker on a switch.

    ``key`` goes with every contribution; a reply without ``reply_key`` is dropped. ``slots`` are
    those of the lease, ``lanes`` the 32-bit words of a chunk, ``field`` the bits of an element.
    """

    def __init__(
        self,
        *,
        switch_ip: str,
        switch_udp_port: int,
        switch_name: str,
        rank: int,
        workers: int,
        job: int,
        epoch: int,
        key: int,
        reply_key: int,
        slots: int,
        lanes: int,
        field: int,
    ) -> None: ...
    def replace(self, **changes: Any) -> Lease:
        """A copy with other values."""
    @property
    def switch_ip(self) -> str: ...
    @property
    def switch_udp_port(self) -> int: ...
    @property
    def switch_name(self) -> str: ...
    @property
    def rank(self) -> int: ...
    @property
    def workers(self) -> int: ...
    @property
    def job(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def key(self) -> int: ...
    @property
    def reply_key(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def lanes(self) -> int: ...
    @property
    def field(self) -> int: ...

class EngineOptions:
    """Limits and habits of an engine; times in seconds, above 0, at most a hundred years.

    ``timeout_s``: a collective that gets no result for so long ends with an error;
    ``switch_timeout_s``: so does one whose switch says nothing at all. ``rto_*``: the timeout for
    sending a chunk again, before a round trip is known, and its bounds; ``poll_max_s``: the longest
    interval between questions while another rank is missing. ``window``: the most chunks in flight
    per stream (0: half of the stream's slots). ``first_position``: where all streams start
    numbering (all ranks must agree). ``keep_nonfinite``: blocks that hold Inf or NaN on any rank are
    left as they are on every rank and named in :attr:`Completion.nonfinite`; otherwise every reader
    writes NaN over them. ``suspend_unreachable``: a switch that cannot be reached suspends the
    engine, so that another carrier takes over; otherwise it ends everything.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 60.0,
        switch_timeout_s: float = 10.0,
        rto_initial_s: float = 0.02,
        rto_min_s: float = 0.01,
        rto_max_s: float = 0.25,
        poll_max_s: float = 0.1,
        window: int = 0,
        first_position: int = 0,
        keep_nonfinite: bool = False,
        suspend_unreachable: bool = False,
    ) -> None: ...
    def replace(self, **changes: Any) -> EngineOptions:
        """A copy with other values."""
    @property
    def timeout_s(self) -> float: ...
    @property
    def switch_timeout_s(self) -> float: ...
    @property
    def rto_initial_s(self) -> float: ...
    @property
    def rto_min_s(self) -> float: ...
    @property
    def rto_max_s(self) -> float: ...
    @property
    def poll_max_s(self) -> float: ...
    @property
    def window(self) -> int: ...
    @property
    def first_position(self) -> int: ...
    @property
    def keep_nonfinite(self) -> bool: ...
    @property
    def suspend_unreachable(self) -> bool: ...

class Packed:
    """A piece (see :meth:`Engine.collect`), or what is left of one, for a carrier that sums in bulk.

    Words are int32 in host order, at an address that the caller gives. First :meth:`exponents`, a
    signed MAX of its words over all ranks, :meth:`agree`; then :meth:`encode`, a SUM mod 2^32,
    :meth:`decode`, for any division of the lanes that is the same on all ranks.

    Exponents go to all ranks, sums only to the readers: the other ranks need not have them, and
    where they call :meth:`agree` or :meth:`decode`, their memory is not written. A copy has no
    exponents, and each of its lanes holds four bytes: on the source :meth:`encode` gives them, on
    the others zeros. Only readers other than the source are written by its :meth:`decode`.
    """

    def __init__(
        self,
        data: int,
        count: int,
        dtype: str,
        average: bool,
        workers: int,
        field: int,
        *,
        rank: int = -1,
        source: int = -1,
        readers: int = 0,
        reader: int = -1,
    ) -> None:
        """The ``count`` elements at address ``data``, as an engine over ``field`` would carry them.

        ``rank``: this rank, which only a sum for all ranks need not know. The other arguments as in
        :meth:`Engine.collect`, with its errors.
        """

    @property
    def count(self) -> int:
        """Elements of the whole tensor; bytes of a copy."""
    @property
    def source(self) -> int:
        """The rank whose bytes a copy carries; -1: a sum of all ranks' elements."""
    @property
    def readers(self) -> int:
        """Who gets the result: 0 all ranks, 1 only ``reader``, 2 all but ``reader``."""
    @property
    def reader(self) -> int:
        """The rank that ``readers`` names; -1 for all."""
    @property
    def writes(self) -> bool:
        """Whether the memory of this rank is written: it is a reader, and not a copy's source."""
    @property
    def blocks(self) -> int:
        """Blocks whose exponents are not agreed at the start."""
    @property
    def lanes(self) -> int:
        """Lanes of the blocks agreed so far that are sent."""
    @property
    def kind(self) -> tuple[int, int, bool, int, int, int, int, int]:
        """What must be the same on all ranks.

        Elements, dtype (a number; -1: a copy's bytes), average, bits, block, source, readers,
        reader.
        """
    @property
    def agreed(self) -> tuple[int, int, int]:
        """Blocks of :meth:`agree` that are sent, zero, and not finite."""
    @property
    def nonfinite(self) -> list[tuple[int, int]]:
        """See :attr:`Completion.nonfinite`."""
    def exponents(self, first: int, count: int, words: int) -> None:
        """Write the codes of ``count`` of the ``blocks``."""
    def agree(self, count: int, words: int) -> None:
        """Take the maximum over all ranks for the next ``count`` blocks."""
    def encode(self, first: int, count: int, words: int) -> None: ...
    def decode(self, first: int, count: int, words: int) -> None: ...

class Rest:
    """What an engine has left of a piece."""

    @property
    def ticket(self) -> int: ...
    @property
    def packed(self) -> Packed: ...

class Engine:
    """One worker's end of a lease: a thread that carries collectives through a switch."""

    def __init__(
        self,
        socket: UdpSocket | ShmSocket,
        lease: Lease,
        options: EngineOptions | None = None,
    ) -> None:
        """Duplicate the socket's descriptor and start the engine's thread.

        Raises ``CodecError`` if the lease's field has no budget for its workers, ``EngineError``
        for any other value out of range.
        """

    def all_reduce(
        self,
        data: int,
        count: int,
        dtype: str,
        average: bool = False,
        ticket: int | None = None,
    ) -> int:
        """Queue an in-place sum (or mean) over all ranks of ``count`` elements at address ``data``.

        The one piece of a :meth:`collect`: a sum that all ranks read. Returns its ticket.
        """

    def collect(self, pieces: Sequence[_Piece]) -> list[int]:
        """Queue the pieces of one collective, all of them or, with an error, none.

        All ranks give the same pieces in the same order, but for ``data`` and ``ticket``. A piece is
        ``(data, count, dtype, average, ticket, source, readers, reader, field)``:

        - ``source`` = -1: a sum (or mean) over all ranks of ``count`` contiguous elements at address
          ``data``. ``dtype``: float32, float16 or bfloat16; int32, which is summed mod 2^32;
          max_uint32, of which the largest is the result. Every rank's memory is read, and that of
          the readers is written, in place.
        - ``source`` = a rank: a copy of the ``count`` bytes at that rank's ``data`` to the ``data``
          of the readers, whatever the bits are; ``dtype`` is "bytes". Memory of the source is only
          read, that of the other readers only written; ``data`` of any other rank may be 0.
        - ``readers``: who gets the result: 0 all ranks (then ``reader`` is -1), 1 only the rank
          ``reader``, 2 all ranks but ``reader``.
        - ``field``: bits of an element, of floats in tensors that are not small; 0: the lease's.
        - ``ticket``: each piece ends by itself. None: the next number. The caller may choose it,
          above those before, so that it knows the ticket even if an interrupt comes between this
          call and its return.

        Sums are carried in their order, and copies in theirs; neither waits for the other. The
        caller keeps the memory alive, and leaves it alone, until the ticket completes, on every
        rank. A ticket ends at once if ``count`` is 0, and on a rank that does not read when all
        ranks have contributed.

        Returns the tickets. Raises ``CodecError`` for another dtype or a mean of what is no float,
        ``EngineClosed`` with the first cause once the engine has failed or was closed, and
        ``EngineError`` for any other value out of range.
        """

    @property
    def epoch(self) -> int:
        """Its lease's."""

    @property
    def lanes(self) -> int:
        """Of a chunk: its lease's."""

    @property
    def started(self) -> int:
        """How many pieces this engine has taken so far."""

    def poll(self, timeout_s: float) -> list[Completion]:
        """Take all completions; blocks without the GIL until there is one, timeout or close."""

    def await_end(self, first: int, count: int, timeout_s: float, leave: bool) -> bool:
        """Wait until the pieces with ``count`` tickets from ``first`` on have ended, without taking
        their completions: :meth:`poll` reports them all the same.

        True: all have their results. False: not all have ended in time, or one of them not well, or
        this engine cannot tell. With ``leave``, who is in :meth:`poll` may take a few completions
        of this kind together, later. Blocks without the GIL, and cannot be interrupted.
        """

    def flush(self) -> None:
        """Let who is in :meth:`poll` take what is there."""

    def wait(self, ticket: int, timeout_s: float) -> Completion | None:
        """Take the completion of one ticket; None if it is not there within ``timeout_s``.

        Raises ``EngineError`` for a ticket that was never given or was already taken.
        """

    def stats(self) -> dict[str, int | float]:
        """Counters since the start; the names are listed in ``engine/README.md``."""

    def positions(self) -> dict[str, StreamPosition]:
        """How far the streams ``exponent``, ``data`` and ``copy`` are. Takes no lock; any thread may ask.

        Of each stream it is one moment's state, at most one turn of the engine's thread old.
        """

    def fail(self, kind: str, line: str) -> None:
        """End everything in flight, and all that comes, with this error; any thread may call it.

        ``kind``: the name of a class in :mod:`wiresum.host_agent.errors`; ``line``: one line, whose
        code the completions keep if it is a :class:`wiresum.common.errors.LineText`. The
        completions come from the engine's thread, soon: until then it may write into tensors. An
        engine that has failed or was closed keeps its first cause. Raises ``EngineError`` for an
        unknown kind.
        """

    def suspend(self, why: str) -> bool:
        """End the thread where it stands, so that another carrier takes over.

        Nothing is sent, applied or ended any more. False if it has failed or was closed.
        """

    @property
    def suspended(self) -> str | None:
        """Why it is suspended, in one line; None while it works."""

    def extent(self) -> dict[str, tuple[int, int]]:
        """Of each stream: the oldest chunk without a result, the first that is not open.

        This and the following are for a suspended engine; they raise ``EngineClosed`` for others.
        """

    def contributions(self, stream: str, first: int, count: int, words: int) -> int:
        """Copy this rank's contributions to ``count`` chunks of a stream to address ``words``.

        A chunk is the lease's ``lanes`` words, in host order; those of exponents are for a signed
        MAX; those of a chunk of a copy are zero on all ranks but its source. Returns a hash of what the chunks are for, which must be the same on all ranks. Raises
        ``EngineError`` for chunks that are not kept: all that any rank may lack are.
        """

    def take_sums(self, stream: str, first: int, count: int, words: int) -> None:
        """Apply the sums (or maxima) of these chunks to those that have no result yet."""

    def rests(self, exponent_end: int, data_end: int, copy_end: int) -> list[Rest]:
        """Hand out what is left of all pieces, in order, once all chunks before these ends have
        results; chunks beyond are closed again. The engine forgets the pieces."""

    def close(self) -> None:
        """Fail what is queued with ``EngineClosed``, end the thread, close the socket. Idempotent."""

    @property
    def closed(self) -> bool: ...

def shm_connect(
    path: str, payload_bytes: int, records: int, timeout_s: float
) -> tuple[int, int, int, int]:
    """Connect to a shm port of a switch on this host, for one :class:`Engine`.

    Asks for rings of at least ``records`` datagrams of at most ``payload_bytes``. Returns the
    socket's descriptor, which the caller closes, this worker's IPv4 address (a number) and UDP port,
    and the switch's IPv4 address. Raises ``EngineError``.
    """

class Levels:
    """Blocks of ``BLOCK`` float32 as a few levels: 0 to ``top`` on one rank, in fields of ``bits``.

    For carriers that sum int32 in bulk; the unused bits of a lane are zero. Words are those of
    :func:`words`, addresses those of contiguous memory.
    """

    def __init__(self, workers: int, top: int, bits: int, gain: float = 1.0) -> None:
        """``bits``: 1 to 16; ``gain``: a block's unit, of which the levels go from minus to plus, is
        so many times the number in its word. Raises ``CodecError`` if the sum of all workers does
        not fit a field.
        """
    @property
    def lanes(self) -> int:
        """Of a block."""
    def encode(
        self,
        blocks: int,
        values: int,
        words: int,
        lanes: int,
        draw: tuple[int, int, int, int, int] | None = None,
        up: bool = False,
    ) -> None:
        """Nearest level, or with ``draw`` a random neighbour whose mean is the value.

        ``draw``: seed, rank, step, purpose (all below 2^32), and the address of two words of 32
        bits for each block: Philox4x32-10 with the key (seed, rank) and the counters (first word +
        0 to 63, step, second word, purpose). ``up``: whether zeros take the upper of two levels.
        """
    def decode(self, blocks: int, lanes: int, words: int, workers: int, values: int) -> None:
        """The mean of so many ranks from the sum of their lanes."""

def words(statistic: int, blocks: int, values: int, lengths: int, words: int) -> None:
    """For each block its largest magnitude (0), mean magnitude (1) or root mean square (2).

    As words that a signed MAX compares, see :class:`Packed`. ``lengths``: int64, the elements of
    each block that count.
    """

def rotate(
    blocks: int, values: int, draw: tuple[int, int, int, int, int], back: bool = False
) -> None:
    """Random signs and a Walsh-Hadamard transform of each block, in place; or their inverse."""

def budget(workers: int, field: int) -> int:
    """L: the largest magnitude that one rank may contribute. Raises ``CodecError`` if it is 0.

    ``field``: 32, 16, 8 or, of the hooks' codecs, 4.
    """

def layout(count: int, field: int) -> tuple[int, int]:
    """What an engine makes of a tensor of ``count`` elements over a lease with ``field``.

    (Elements that share an exponent, bits of a field): ``(1, 32)`` up to ``SMALL`` elements, else
    ``(BLOCK, field)``. The functions below take both.
    """

def exponents(data: NDArray[np.generic], dtype: str, *, block: int = 256) -> NDArray[np.uint32]:
    """Exponent code of each block of a contiguous array of 32-bit or 16-bit items."""

def encode(
    data: NDArray[np.generic],
    dtype: str,
    codes: NDArray[np.uint32],
    workers: int,
    field: int,
    *,
    block: int = 256,
) -> NDArray[np.uint32]:
    """Lanes (as numbers, in host order) of all blocks that ``codes`` says are sent, packed in order."""

def decode(
    lanes: NDArray[np.uint32],
    data: NDArray[np.generic],
    dtype: str,
    codes: NDArray[np.uint32],
    workers: int,
    field: int,
    average: bool = False,
    *,
    block: int = 256,
) -> None:
    """Write the sums in ``lanes`` (packed as by :func:`encode`) over ``data``."""

def close_all() -> None:
    """Close all engines of this process, as its end does; any thread may call it."""

def isa() -> str:
    """The instruction set in use: avx512, avx2 or baseline."""

def set_isa(name: str) -> None:
    """Use another instruction set than the best one (a testing aid)."""
