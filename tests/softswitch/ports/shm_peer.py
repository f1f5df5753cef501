"""A worker of a shm port in Python: it follows common/native/shm_ring.hpp, but may misbehave."""

import array
import contextlib
import fcntl
import mmap
import os
import socket
import struct
import time
from pathlib import Path
from types import TracebackType
from typing import Self

MAGIC = 0x77737232
LIMIT_S = 20
LINE = 64
PAYLOAD_AT = 36
# Words of the control block, by offset.
TO_SWITCH_HEAD, TO_SWITCH_TAIL, TO_WORKER_HEAD, TO_WORKER_TAIL = 0, 64, 128, 192
SWITCH_SLEEPS, WORKER_SLEEPS = 256, 320
CONTROL_BYTES = 384
HELLO = struct.Struct("=6IQ")
WELCOME = struct.Struct("=8IQ")
OTHER_ADDRESS = 4


class Refused(Exception):
    """The switch has not answered with welcome; ``args[0]`` is the answer."""


class ShmPeer:
    """One connection; ``write_*`` put any value into the shared memory."""

    def __init__(
        self,
        path: str | Path,
        payload_bytes: int = 2048,
        records: int = 64,
        hello: bytes | None = None,
        claim: tuple[tuple[str, int], int] | None = None,
    ) -> None:
        """``claim``: the address to ask for, and the ticket that came with it."""
        (wanted, wanted_port), ticket = claim or (("0.0.0.0", 0), 0)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.memory: mmap.mmap | None = None
        self.descriptors: list[int] = []
        try:
            self.socket.settimeout(LIMIT_S)
            self.socket.connect(str(path))
            (number,) = struct.unpack("!I", socket.inet_aton(wanted))
            plain = HELLO.pack(MAGIC, payload_bytes, records, number, wanted_port, 0, ticket)
            answer: bytes = b""
            with contextlib.suppress(ConnectionError):
                self.socket.send(hello or plain)
                answer, rights, _, _ = self.socket.recvmsg(64, socket.CMSG_SPACE(8))
            if not answer:
                raise Refused("hung up")
            _, said, self.payload_bytes, self.records, ip, port, switch_ip, _, self.ticket = (
                WELCOME.unpack(answer)
            )
            if said != 0:
                raise Refused(said)
            self.address = socket.inet_ntoa(struct.pack("!I", ip)), port
            self.switch_ip = socket.inet_ntoa(struct.pack("!I", switch_ip))
            descriptors = array.array("i")
            descriptors.frombytes(rights[0][2])
            self.descriptors = list(descriptors)
            self.memory_fd, self.wake_fd = self.descriptors
            self.memory = mmap.mmap(self.memory_fd, os.fstat(self.memory_fd).st_size)
            # Written in one piece. struct.pack_into() writes zeros first: the other side would see
            # indices that were never meant.
            self.words = memoryview(self.memory).cast("I")
        except BaseException:
            self.close()
            raise
        self.stride = (PAYLOAD_AT + self.payload_bytes + LINE - 1) // LINE * LINE
        self.sent = self.taken = 0

    def close(self) -> None:
        """Hang up."""
        if self.memory is not None:
            self.words.release()
            self.memory.close()
        self.memory = None
        while self.descriptors:
            with contextlib.suppress(OSError):
                os.close(self.descriptors.pop())
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def seals(self) -> int:
        """Of the memory."""
        return fcntl.fcntl(self.memory_fd, fcntl.F_GET_SEALS)

    # -- the memory

    def read_word(self, at: int) -> int:
        """A word, as it is now."""
        return self.words[at // 4]

    def write_word(self, at: int, value: int) -> None:
        """Write a word."""
        self.words[at // 4] = value & 0xFFFFFFFF

    def _at(self, ring: int, index: int) -> int:
        first = CONTROL_BYTES + ring * self.stride * self.records
        return first + self.stride * (index % self.records)

    def write_record(self, index: int, payload: bytes, length: int | None = None) -> None:
        """Write a record towards the switch; ``length`` is the length that it claims."""
        assert self.memory is not None
        at = self._at(0, index)
        self.memory[at + PAYLOAD_AT : at + PAYLOAD_AT + len(payload)] = payload
        self.write_word(at, len(payload) if length is None else length)

    def wake(self) -> None:
        """Wake the switch, without a look at whether it sleeps."""
        os.write(self.wake_fd, struct.pack("=Q", 1))

    # -- as an honest worker

    def send(self, *payloads: bytes, length: int | None = None) -> None:
        """Send datagrams; they must fit the ring."""
        for payload in payloads:
            self.write_record(self.sent, payload, length)
            self.sent += 1
        self.write_word(TO_SWITCH_TAIL, self.sent)
        self.wake()

    def waiting(self) -> int:
        """Datagrams that have come."""
        return (self.read_word(TO_WORKER_TAIL) - self.taken) & 0xFFFFFFFF

    def receive(self) -> bytes:
        """The next datagram."""
        limit = time.monotonic() + LIMIT_S
        while not self.waiting():
            assert time.monotonic() < limit, "nothing has come"
            time.sleep(0.001)
        assert self.memory is not None
        at = self._at(1, self.taken)
        length = self.read_word(at)
        payload = self.memory[at + PAYLOAD_AT : at + PAYLOAD_AT + length]
        self.taken += 1
        self.write_word(TO_WORKER_HEAD, self.taken)
        return bytes(payload)

    def is_cut_off(self) -> bool:
        """Whether the switch hangs up, within a limit."""
        with contextlib.suppress(ConnectionError):
            while self.socket.recv(64):
                pass
        return True
