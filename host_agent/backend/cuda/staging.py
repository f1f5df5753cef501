"""Carries collectives of tensors on a device: to the host, through the engine, and back.

The thread that issues a collective queues its first operations on a stream of this package, after
what its own stream has got, and goes on. One thread (*stage*) takes the collectives in their order,
which is the same on all ranks, copies a round of each at a time to pinned memory, and hands it to
the engine; another (*land*) copies the results back on a second stream. So the copies of one round
run beside the wire of another, in both directions, and beside what the training computes.

With fields of 16 or 8 bits the device computes the exponents and the lanes of large sums: the ranks
agree on the exponents with a MAX and sum the lanes as integers, which are the sums that the engine
would have made of the elements.
"""

import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence

import torch

from wiresum.common.errors import WiresumError
from wiresum.host_agent import lines
from wiresum.host_agent._engine import BLOCK, budget
from wiresum.host_agent.agent.face import ALL
from wiresum.host_agent.backend.completion import Waiting
from wiresum.host_agent.backend.cuda.cutting import Part
from wiresum.host_agent.backend.cuda.device import Device
from wiresum.host_agent.backend.cuda.job import (
    ALIGNED,
    Agreed,
    Coded,
    Codes,
    Fixed,
    Flight,
    Job,
    Lane,
    Taken,
    flat,
    nonfinite,
)
from wiresum.host_agent.backend.cuda.kernels import Fields, scales_of
from wiresum.host_agent.backend.cuda.pool import Buffer, wait_until
from wiresum.host_agent.backend.cuda.work import StagedWork
from wiresum.host_agent.backend.plans import Piece, plan
from wiresum.host_agent.backend.request import Request
from wiresum.host_agent.backend.tensors import Copies, copy_back
from wiresum.host_agent.backend.work import Repair, Span
from wiresum.host_agent.errors import EngineClosed

log = logging.getLogger("wiresum")

AHEAD = 2
"""Rounds that are copied to the host at a time."""
CLOSE_S = 5.0
"""How long closing waits for each thread."""


Hand = Callable[[Waiting, Sequence[Piece]], None]
"""Hands pieces in the host's memory to the engine."""


class Staging:
    """The way of one rank's collectives to its engine while some of them are on a device."""

    def __init__(self, rank: int, size: int, field: int, hand: Hand) -> None:
        """``field``: bits of an element on the wire, 32 where the engine alone knows."""
        self._rank = rank
        self._fields = Fields(field, budget(size, field), size)
        self._hand = hand
        self._lanes: dict[Device, Lane] = {}
        self._lock = threading.Lock()
        self._queued = 0
        self._closed = False
        self._broken: BaseException | None = None
        self._issued: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._landed: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=run, args=(jobs,), name=f"wiresum-{name}", daemon=True)
            for name, run, jobs in (
                ("stage", self._run, self._issued),
                ("land", _run, self._landed),
            )
        ]
        for thread in self._threads:
            thread.start()

    # -- on the thread that issues ------------------------------------------------------------

    def begin(
        self,
        device: Device,
        request: Request,
        viewed: Copies,
        work: StagedWork,
        limit_s: float,
        repair: Repair,
    ) -> int:
        """Start a collective; how many pieces it has. ``work`` ends with it.

        ``viewed``: what to copy on the device in the end, beside the plan's. ``repair``: sums
        blocks with Inf or NaN, on the host. ``limit_s``: of each wait for the device or the engine;
        one that is over ends all that this rank issues later, too, so not the limit of a call.
        """
        lane = self._lanes.get(device)
        if lane is None:
            lane = self._lanes.setdefault(device, Lane(device))
        lane.down.wait(device.current().record())
        with lane.down.using():
            made = plan(request)
            copies = [*made.copies, *viewed]
            job = Job(*(work, lane, self._rank, self._fields, made.pieces, copies, repair, limit_s))
            blocks = job.find_coded()
            if blocks:
                self._compute_codes(job, blocks)
            job.planned = lane.down.record()
        self._keep(job, request)
        self._queue(lambda: self._stage(job))
        return len(made.pieces)

    def _compute_codes(self, job: Job, blocks: int) -> None:
        lane = job.lane
        on_device = next(iter(job.coded.values())).values
        with torch.inference_mode(False):  # another thread writes to both
            codes = torch.empty(blocks, dtype=torch.int32, device=on_device.device)
            host = lane.device.pinned(4 * blocks).view(torch.int32)
        for each in job.coded.values():
            lane.kernels.codes(each.values, codes[each.first : each.first + each.blocks])
        lane.device.copy(host, codes)
        job.codes = Codes(codes, host)

    def _keep(self, job: Job, request: Request) -> None:
        """The caller may drop its tensors while the streams have not come to them."""
        used = [*request.all_tensors, *(target for _, target in job.copies)]
        used += [each for each, _ in job.copies if isinstance(each, torch.Tensor)]
        used += [piece.memory for piece in job.pieces if piece.memory is not None]
        if job.codes is not None:
            used.append(job.codes.device)
        for tensor in used:
            for stream in job.lane.streams:
                stream.keep(tensor)

    @property
    def busy(self) -> bool:
        """Whether one in the host's memory has to :meth:`follow` others."""
        with self._lock:
            return self._queued > 0 or self._broken is not None

    def follow(self, start: Callable[[], None], failed: Callable[[BaseException], None]) -> None:
        """Call ``start`` after what waits here; ``failed`` if it raises an error."""

        def run() -> None:
            try:
                self._check()
                start()
            except Exception as error:
                failed(error)

        self._queue(run)

    def _check(self) -> None:
        """The engine gets nothing after what it should have got: it would sum what differs."""
        if isinstance(self._broken, WiresumError):
            raise self._broken
        if self._broken is not None:
            why = f"{type(self._broken).__name__}: {self._broken}"
            raise EngineClosed(lines.NO_MORE_WORK_SINCE.of(why=why)) from self._broken

    def _break(self, error: BaseException) -> None:
        with self._lock:
            self._broken = self._broken or error

    def _queue(self, run: Callable[[], None]) -> None:
        with self._lock:
            if self._closed:
                raise EngineClosed(lines.SHUT_DOWN.of())
            self._queued += 1
        self._issued.put(run)

    # -- the thread that stages ---------------------------------------------------------------

    def _run(self, jobs: "queue.SimpleQueue[Callable[[], None] | None]") -> None:
        def count_down() -> None:
            with self._lock:
                self._queued -= 1

        _run(jobs, count_down)

    def _stage(self, job: Job) -> None:
        try:
            self._check()
            if job.codes is not None:
                self._agree(job, job.codes)
            cut = job.rounds()
        except Exception as error:
            self._break(error)
            job.left, failure = 1, error
            self._land(lambda: self._give_up(job, failure, 1))
            return
        job.left = max(1, len(cut))
        if not cut:
            self._land(lambda: self._round_ended(job))
        launched: deque[Flight] = deque()
        started = 0
        try:
            for parts in cut:
                buffer = self._buffer(job, parts, launched)
                launched.append(self._copy_down(job, parts, buffer))
                started += 1
                if len(launched) == AHEAD:
                    self._depart(launched)
            while launched:
                self._depart(launched)
        except Exception as error:
            self._break(error)
            missing, unheard = len(cut) - started + len(launched), error
            for flight in launched:
                job.lane.pool.give_back(flight.buffer, flight.copied)
            self._land(lambda: self._give_up(job, unheard, missing))

    def _agree(self, job: Job, codes: Codes) -> None:
        """Get the largest code of each block over all ranks."""
        assert job.planned is not None
        lane = job.lane
        wait_until(job.planned.done, job.limit_s, "what came before a collective")
        whole = Piece(codes.host, codes.host.numel(), "max_uint32", False, -1, ALL, -1, True)
        agreed = Agreed(whole)
        self._hand(agreed.taken, [whole])
        agreed.wait(job.limit_s)
        with lane.down.using():
            lane.device.copy(codes.device, codes.host)
            for each in job.coded.values():
                own = codes.device[each.first : each.first + each.blocks]
                each.scales = scales_of(own, self._fields, average=each.average)
                for tensor in each.scales:
                    lane.up.keep(tensor)
        for index, each in job.coded.items():
            mine = codes.host[each.first : each.first + each.blocks]
            for first, count in nonfinite(mine, each.values.numel()):
                self._fetch(job, index, each, first, count)

    def _fetch(self, job: Job, index: int, coded: Coded, first: int, count: int) -> None:
        """Bring elements of blocks with Inf or NaN to the host."""
        lane = job.lane
        target = coded.values[first : first + count]
        host = self._host_like(lane, target)
        with lane.down.using():
            lane.device.copy(host, target)
            copied = lane.down.record()
        wait_until(copied.done, job.limit_s, "a copy to the host")
        span = Span(host, job.pieces[index].reads)
        job.fixed.append(Fixed(index, first, target, span))

    @staticmethod
    def _host_like(lane: Lane, tensor: torch.Tensor) -> torch.Tensor:
        return lane.device.pinned(tensor.nbytes).view(tensor.dtype)

    def _buffer(self, job: Job, parts: Sequence[Part], launched: deque[Flight]) -> Buffer:
        size = sum(_aligned(job.bytes_of(part.piece, part.count)) for part in parts)
        pool = job.lane.pool
        while (found := pool.take(size)) is None and launched:
            self._depart(launched)  # what it holds comes back only after that
        if found is None:
            kept: list[Buffer] = []

            def taken() -> bool:
                got = pool.take(size)
                if got is not None:
                    kept.append(got)
                return got is not None

            wait_until(taken, job.limit_s, "room in pinned memory")
            (found,) = kept
        return found

    def _copy_down(self, job: Job, parts: Sequence[Part], buffer: Buffer) -> Flight:
        lane = job.lane
        hosts: list[torch.Tensor | None] = []
        at = 0
        with lane.down.using():
            for part in parts:
                piece = job.pieces[part.piece]
                size = job.bytes_of(part.piece, part.count)
                room = buffer.memory[at : at + size]
                at += _aligned(size)
                coded = job.coded.get(part.piece)
                if coded is not None:
                    host: torch.Tensor | None = room.view(torch.int32)
                    self._quantize(job, coded, part, room.view(torch.int32))
                elif piece.memory is None:
                    host = None
                else:
                    source = flat(piece)[part.first : part.first + part.count]
                    host = room.view(source.dtype)
                    if job.gives(piece):
                        lane.device.copy(host, source)
                hosts.append(host)
            copied = lane.down.record()
        return Flight(job, parts, buffer, hosts, copied)

    def _quantize(self, job: Job, coded: Coded, part: Part, host: torch.Tensor) -> None:
        assert coded.scales is not None
        values = coded.values[part.first : part.first + part.count]
        first, end = part.first // BLOCK, -(-(part.first + part.count) // BLOCK)
        lanes = torch.empty(
            (end - first) * self._fields.lanes, dtype=torch.int32, device=values.device
        )
        scales = coded.scales.of(first, end)
        job.lane.kernels.encode(values, scales, self._fields, lanes)
        job.lane.device.copy(host, lanes[: host.numel()])

    def _depart(self, launched: deque[Flight]) -> None:
        """Hand the first round that was launched to the engine, once it is on the host."""
        flight = launched[0]
        wait_until(flight.copied.done, flight.job.limit_s, "a copy to the host")
        flight.taken = Taken(lambda: self._land(lambda: self._copy_up(flight)))
        self._hand(flight.taken, flight.calls())
        launched.popleft()

    # -- the thread that lands ----------------------------------------------------------------

    def _land(self, run: Callable[[], None]) -> None:
        self._landed.put(run)

    def _copy_up(self, flight: Flight) -> None:
        job, lane = flight.job, flight.job.lane
        after = None
        try:
            assert flight.taken is not None
            job.error = job.error or flight.taken.error
            if job.error is None:
                self._note_nonfinite(flight)
                with lane.up.using():  # what was planned has happened: `copied` comes after it
                    for part, host in zip(flight.parts, flight.hosts, strict=True):
                        if job.pieces[part.piece].reads and host is not None:
                            self._write(job, part, host)
                    after = lane.up.record()
        except Exception as error:
            job.error = job.error or error
        lane.pool.give_back(flight.buffer, after)
        self._round_ended(job)

    def _note_nonfinite(self, flight: Flight) -> None:
        """Keep what the engine has left because of Inf or NaN, since the buffer is given back."""
        assert flight.taken is not None
        for number, ranges in flight.taken.nonfinite.items():
            part, host = flight.parts[number], flight.hosts[number]
            piece = flight.job.pieces[part.piece]
            assert host is not None
            for first, count in ranges:
                at = part.first + first
                kept = self._host_like(flight.job.lane, host[first : first + count])
                kept.copy_(host[first : first + count])
                span = Span(kept, piece.reads)
                target = flat(piece)[at : at + count]
                flight.job.fixed.append(Fixed(part.piece, at, target, span))

    def _write(self, job: Job, part: Part, host: torch.Tensor) -> None:
        """Queue the copy of a result to the device."""
        lane = job.lane
        target = flat(job.pieces[part.piece])[part.first : part.first + part.count]
        with _writable(target):
            coded = job.coded.get(part.piece)
            if coded is None:
                lane.device.copy(target, host)
                return
            assert coded.scales is not None
            first, end = part.first // BLOCK, -(-(part.first + part.count) // BLOCK)
            lanes = torch.zeros(
                (end - first) * self._fields.lanes, dtype=torch.int32, device=target.device
            )
            lane.device.copy(lanes[: host.numel()], host)
            lane.kernels.decode(lanes, coded.scales.of(first, end), self._fields, target)

    def _give_up(self, job: Job, error: BaseException, missing: int) -> None:
        """So many rounds will not land, because of ``error``."""
        job.error = job.error or error
        self._round_ended(job, missing)

    def _round_ended(self, job: Job, count: int = 1) -> None:
        job.left -= count
        if job.left == 0:
            self._ended(job)

    def _ended(self, job: Job) -> None:
        """The engine has done with it."""
        if job.error is not None or not job.fixed:
            self._finish(job, job.error)
            return
        job.fixed.sort(key=lambda each: (each.piece, each.first))  # alike on all ranks
        try:
            job.repair(
                [each.span for each in job.fixed],
                lambda error: self._land(lambda: self._finish(job, error)),
            )
        except Exception as error:
            self._finish(job, error)

    def _finish(self, job: Job, error: BaseException | None) -> None:
        lane = job.lane
        if error is None:
            try:
                with lane.up.using():
                    assert job.planned is not None
                    lane.up.wait(job.planned)
                    for each in job.fixed:
                        if each.span.reads:
                            with _writable(each.target):
                                lane.device.copy(each.target, each.span.memory)
                    copy_back(job.copies)
                job.work.end(lane.up)
            except Exception as failure:
                error = failure
        if error is not None:
            job.work.end(error)

    # -- the end ------------------------------------------------------------------------------

    def close(self) -> None:
        """End the threads; the engine has been closed, so that nothing waits in it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for thread, jobs in zip(self._threads, (self._issued, self._landed), strict=True):
            jobs.put(None)
            if thread is not threading.current_thread():
                thread.join(CLOSE_S)


def _run(
    jobs: "queue.SimpleQueue[Callable[[], None] | None]",
    after: Callable[[], None] = lambda: None,
) -> None:
    while (job := jobs.get()) is not None:
        try:
            job()
        except Exception:
            log.exception("wiresum: a collective of a device failed")  # a fault of this module
        finally:
            after()


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


def _writable(tensor: torch.Tensor) -> contextlib.AbstractContextManager[object]:
    """A tensor made under inference mode may be written under it alone."""
    return torch.inference_mode() if tensor.is_inference() else contextlib.nullcontext()
