"""The packet format, made by generate.py from the P4 headers: do not edit."""

from enum import IntEnum

UDP_PORT = 22355
VERSION = 3
SLOTS = 4096
JOBS = 1024
EVENTS = 8
DROP_REASONS = 17
FLOOD_GROUP = 1
JOB_GROUPS = 256
ETHERNET_BYTES = 14
IPV4_BYTES = 20
UDP_BYTES = 8
HEADER_BYTES = 28
CONTRIBUTORS_BYTES = 8
READER_BITS = 6

# The wiresum header for the struct module, and its fields in order.
HEADER_FORMAT = "!BBBBHHIIQI"
HEADER_FIELDS = (
    "version",
    "kind",
    "op",
    "readers",
    "job",
    "slot",
    "epoch",
    "chunk",
    "key",
    "fingerprint",
)


class Kind(IntEnum):
    """``Kind`` of the P4 headers."""

    CONTRIBUTION = 1
    RESULT = 2
    WAIT = 3
    MISMATCH = 4


class Op(IntEnum):
    """``Op`` of the P4 headers."""

    SUM = 0
    MAX = 1


class Readers(IntEnum):
    """``Readers`` of the P4 headers."""

    ALL = 0
    ONLY = 1  # the rank that `readers` names
    ALL_BUT = 2  # every rank but that one


class DropReason(IntEnum):
    """``DropReason`` of the P4 headers."""

    TRUNCATED = 0  # the frame ends in the middle of a header
    BAD_CHECKSUM = 1  # IPv4 header checksum
    SPOOFED_SOURCE = 2  # claims to come from the switch, or from a host behind another port
    LOCAL_UNSERVED = 3  # to the switch's address, but nothing that it answers
    WRONG_VERSION = 4  # another version of the packet format
    FORGED_REPLY = 5  # RESULT, WAIT, MISMATCH or an unknown kind from a host port
    WRONG_OP = 6  # neither SUM nor MAX
    WRONG_LENGTH = 7  # not exactly the header, or the header and LANES lanes
    STRANGER = 8  # no lease has this sender, job, epoch and key
    OUT_OF_LEASE = 9  # slot beyond the lease
    STALE = 10  # older than what the slot holds
    SAME_PORT = 11  # would leave through the port that it came from
    UNDELIVERABLE = 12  # a reply to a worker whose address is not known
    TAGGED = 13  # a VLAN tag, behind which anything could hide
    LINK_LOCAL = 14  # to an address that no bridge may forward (IEEE 802.1D, table 7-10)
    DAMAGED = 15  # a contribution that its UDP checksum does not fit
    WRONG_READERS = 16  # readers that are no Readers, or name a rank that the job does not have


class Event(IntEnum):
    """``Event`` of the P4 headers."""

    CLAIMED = 0  # opened a slot
    ADDED = 1  # added to an open slot
    COMPLETED = 2  # was the last one: RESULT multicast
    RESENT = 3  # repeated after completion: RESULT to the sender alone
    WAITED = 4  # repeated before completion: WAIT to the sender
    MISMATCHED = 5  # of another collective than the slot's: MISMATCH multicast
    STALE = 6
    OUT_OF_LEASE = 7
