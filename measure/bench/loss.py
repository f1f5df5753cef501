"""Random loss of single frames on links whose frames travel in trains.

nftables and queueing disciplines see a train of segments as one packet, and switching trains off
makes the processors the limit instead of the links. An XDP program sits before that: the sender's
kernel cuts the train for it, each frame is lost or not by its own, and the receiver's GRO makes
trains of those that are left.
"""

import ctypes
import os
import re
import struct
from typing import Self

from wiresum.measure import lines
from wiresum.testbed.errors import RackError
from wiresum.testbed.namespaces import enter, run, within

_SYSCALLS = {"x86_64": 321, "aarch64": 280, "riscv64": 280}  # bpf(2)
_PROG_LOAD, _LINK_CREATE = 5, 28
_PROG_TYPE_XDP = 6
_ATTACH_XDP = 37
_DROP, _PASS = 1, 2
_DROPS = re.compile(r"rx_queue_\d+_xdp_drops: (\d+)")


def _program(share: float) -> bytes:
    """Instructions: return drop if a 32-bit random number is below ``share`` of all, else pass."""

    def instruction(code: int, register: int, source: int, offset: int, value: int) -> bytes:
        return struct.pack("<BBhI", code, source << 4 | register, offset, value)

    return b"".join(
        (
            instruction(0x85, 0, 0, 0, 7),  # r0 = bpf_get_prandom_u32()
            instruction(0xB4, 1, 0, 0, round(share * 2**32)),  # w1 = threshold
            instruction(0x3D, 0, 1, 2, 0),  # if r0 >= r1 skip two
            instruction(0xB7, 0, 0, 0, _DROP),
            instruction(0x95, 0, 0, 0, 0),  # return r0
            instruction(0xB7, 0, 0, 0, _PASS),
            instruction(0x95, 0, 0, 0, 0),
        )
    )


def _bpf(command: int, attributes: bytes) -> int:
    number = _SYSCALLS.get(os.uname().machine)
    if number is None:
        raise RackError(lines.NO_BPF.of(machine=os.uname().machine))
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = int(ctypes.CDLL(None, use_errno=True).syscall(number, command, buffer, 128))
    if result < 0:
        reason = os.strerror(ctypes.get_errno())
        raise RackError(lines.NO_XDP.of(why=reason))
    return result


class FrameLoss:
    """Loses a share of the frames that come in on one interface, until it is closed.

    The kernel takes it off, too, when this process ends.
    """

    def __init__(self, namespace: str, interface: str, share: float) -> None:
        """Raises :class:`RackError` where the kernel refuses."""
        self._where = (namespace, interface)
        code = ctypes.create_string_buffer(_program(share))
        licence = ctypes.create_string_buffer(b"GPL")
        load = struct.pack(
            "<IIQQ", _PROG_TYPE_XDP, (len(code) - 1) // 8, ctypes.addressof(code),
            ctypes.addressof(licence),
        )  # fmt: skip
        program = _bpf(_PROG_LOAD, load)
        try:
            index = int(
                run(*enter(namespace), "cat", f"/sys/class/net/{interface}/ifindex").strip()
            )
            create = struct.pack("<IIII", program, index, _ATTACH_XDP, 0)
            try:
                self._link = within(namespace, lambda: _bpf(_LINK_CREATE, create))
            except OSError as error:
                raise RackError(
                    lines.NAMESPACE_CLOSED.of(namespace=namespace, why=error.strerror)
                ) from None
        finally:
            os.close(program)

    def lost(self) -> int:
        """Frames lost so far."""
        namespace, interface = self._where
        said = run(*enter(namespace), "ethtool", "-S", interface)
        return sum(int(found) for found in _DROPS.findall(said))

    def close(self) -> None:
        """End the loss."""
        if self._link >= 0:
            os.close(self._link)
            self._link = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
