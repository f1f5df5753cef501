// What is counted, and under which name. Every way to drop a packet has its own.
#ifndef WIRESUM_COUNTERS
#define WIRESUM_COUNTERS

enum bit<32> DropReason {
    TRUNCATED = 0,         // the frame ends in the middle of a header
    BAD_CHECKSUM = 1,      // IPv4 header checksum
    SPOOFED_SOURCE = 2,    // claims to come from the switch, or from a host behind another port
    LOCAL_UNSERVED = 3,    // to the switch's address, but nothing that it answers
    WRONG_VERSION = 4,     // another version of the packet format
    FORGED_REPLY = 5,      // RESULT, WAIT, MISMATCH or an unknown kind from a host port
    WRONG_OP = 6,          // neither SUM nor MAX
    WRONG_LENGTH = 7,      // not exactly the header, or the header and LANES lanes
    STRANGER = 8,          // no lease has this sender, job, epoch and key
    OUT_OF_LEASE = 9,      // slot beyond the lease
    STALE = 10,            // older than what the slot holds
    SAME_PORT = 11,        // would leave through the port that it came from
    UNDELIVERABLE = 12,    // a reply to a worker whose address is not known
    TAGGED = 13,           // a VLAN tag, behind which anything could hide
    LINK_LOCAL = 14,       // to an address that no bridge may forward (IEEE 802.1D, table 7-10)
    DAMAGED = 15,          // a contribution that its UDP checksum does not fit
    WRONG_READERS = 16     // readers that are no Readers, or name a rank that the job does not have
}
const bit<32> DROP_REASONS = 17;

@name(".drops") counter(DROP_REASONS, CounterType.packets) drops;

// What became of a member's CONTRIBUTION: events[job * EVENTS + event].
enum bit<32> Event {
    CLAIMED = 0,       // opened a slot
    ADDED = 1,         // added to an open slot
    COMPLETED = 2,     // was the last one: RESULT multicast
    RESENT = 3,        // repeated after completion: RESULT to the sender alone
    WAITED = 4,        // repeated before completion: WAIT to the sender
    MISMATCHED = 5,    // of another collective than the slot's: MISMATCH multicast
    STALE = 6,
    OUT_OF_LEASE = 7
}
const bit<32> EVENTS = 8;

#endif
