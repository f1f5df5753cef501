// The packet format: the one source of it. p4/generate.py makes the Python and
// C++ constants from this file; keep declarations on the plain forms used here.
#ifndef WIRESUM_HEADERS
#define WIRESUM_HEADERS

#include "lane_list.p4"

typedef bit<48> mac_t;
typedef bit<32> ip_t;

const bit<16> ETHERTYPE_IPV4 = 0x0800;
const bit<16> ETHERTYPE_ARP = 0x0806;
const bit<16> ETHERTYPE_VLAN = 0x8100;
const bit<16> ETHERTYPE_PROVIDER_VLAN = 0x88A8;
// Set in the MAC addresses of groups, broadcast among them.
const mac_t GROUP_BIT = 0x010000000000;
// 01-80-C2-00-00-00 to -0F: spanning tree, PAUSE, LACP, LLDP.
const mac_t LINK_LOCAL_MACS = 0x0180C2000000;
const mac_t LINK_LOCAL_MASK = 0xFFFFFFFFFFF0;
const bit<8> PROTOCOL_ICMP = 1;
const bit<8> PROTOCOL_UDP = 17;

// Where workers send: the wiresum protocol is recognised by this destination port.
const bit<16> UDP_PORT = 22355;
const bit<8> VERSION = 3;

// What a worker sends is a CONTRIBUTION; every other kind comes from a switch.
enum bit<8> Kind {
    CONTRIBUTION = 1,
    RESULT = 2,
    WAIT = 3,
    MISMATCH = 4
}

enum bit<8> Op {
    SUM = 0,
    MAX = 1
}

// Which ranks get a RESULT's lanes. The others get the same RESULT bare, without lanes.
enum bit<2> Readers {
    ALL = 0,
    ONLY = 1,             // the rank that `readers` names
    ALL_BUT = 2           // every rank but that one
}
// Of the rank in `readers`, below the Readers.
const bit<8> READER_BITS = 6;

// Bytes of a header, for the lengths that a packet must have.
const bit<16> ETHERNET_BYTES = 14;
const bit<16> IPV4_BYTES = 20;
const bit<16> UDP_BYTES = 8;
const bit<16> HEADER_BYTES = 28;
const bit<16> CONTRIBUTORS_BYTES = 8;
const bit<16> CONTRIBUTION_UDP_BYTES = UDP_BYTES + HEADER_BYTES + 4 * LANES;
// Of a CONTRIBUTION or a RESULT without lanes.
const bit<16> BARE_UDP_BYTES = UDP_BYTES + HEADER_BYTES;
const bit<16> STATUS_UDP_BYTES = UDP_BYTES + HEADER_BYTES + CONTRIBUTORS_BYTES;

// The multicast group of all ports, for frames whose destination is unknown.
const bit<16> FLOOD_GROUP = 1;
// The multicast group of job j is JOB_GROUPS + j.
const bit<16> JOB_GROUPS = 0x100;

header ethernet_t {
    mac_t dst;
    mac_t src;
    bit<16> type;
}

header arp_t {
    bit<16> hardware;
    bit<16> protocol;
    bit<8> hardware_length;
    bit<8> protocol_length;
    bit<16> oper;
    mac_t sender_mac;
    ip_t sender_ip;
    mac_t target_mac;
    ip_t target_ip;
}

header ipv4_t {
    bit<4> version;
    bit<4> header_words;
    bit<8> tos;
    bit<16> length;
    bit<16> identification;
    bit<3> flags;
    bit<13> fragment;
    bit<8> ttl;
    bit<8> protocol;
    bit<16> checksum;
    ip_t src;
    ip_t dst;
}

header icmp_t {
    bit<8> type;
    bit<8> code;
    bit<16> checksum;
}

header udp_t {
    bit<16> src_port;
    bit<16> dst_port;
    bit<16> length;
    bit<16> checksum;
}

header wiresum_t {
    bit<8> version;
    bit<8> kind;
    bit<8> op;
    bit<8> readers;       // [7:6]: Readers; [5:0]: the rank that it names, 0 for ALL
    bit<16> job;          // the job's number on this switch
    bit<16> slot;         // relative to the lease
    bit<32> epoch;        // never 0
    bit<32> chunk;        // a serial number: it wraps
    // One of the lease's two secrets: in a CONTRIBUTION the one that its workers are known by, in
    // replies the one that its switch is known by. Who sees replies cannot contribute.
    bit<64> key;
    bit<32> fingerprint;  // of the collective that the chunk belongs to
}

// In a CONTRIBUTION, unless it is bare: then it adds zero. In a RESULT to a rank that reads.
header lanes_t {
#define LANE_FIELD(x) bit<32> l##x;
    EACH_LANE(LANE_FIELD)
}

// In a WAIT and in a MISMATCH: bit r is set where rank r has contributed.
header contributors_t {
    bit<64> bitmap;
}

struct headers_t {
    ethernet_t ethernet;
    arp_t arp;
    ipv4_t ipv4;
    icmp_t icmp;
    udp_t udp;
    wiresum_t wiresum;
    contributors_t contributors;
    lanes_t lanes;
}

struct metadata_t {
    // Set for a CONTRIBUTION whose lengths are those of one without lanes.
    bool bare;
    // Set where the frame is addressed to the switch itself.
    bool local;
    mac_t switch_mac;
    // Set for a frame that every port but its own shall get.
    bool flooded;
    // Set where the frame leaves as an answer to (or a RESULT for) a worker.
    bool reply;
    // From the membership table, never from the packet.
    bit<8> worker;
    bit<64> worker_bit;
    bit<64> full;
    bit<16> slot_base;
    bit<16> slot_count;
    bit<16> group;
    bit<64> reply_key;
    // The slot that this packet is about, and its first cell in `lanes`.
    bit<32> slot;
    bit<32> lane_base;
    // Never written: what a checksum over data and their checksum must be.
    bit<16> zero;
}

#endif
