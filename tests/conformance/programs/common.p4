// What the programs share: Ethernet, IPv4, TCP's and UDP's ports, and IPv4's header checksum.
#ifndef SUITE_COMMON
#define SUITE_COMMON
#include <core.p4>
#include <v1model.p4>

const bit<16> TYPE_IPV4 = 0x0800;
const bit<8> PROTOCOL_TCP = 6;
const bit<8> PROTOCOL_UDP = 17;

header ethernet_t {
    bit<48> dst;
    bit<48> src;
    bit<16> type;
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
    bit<32> src;
    bit<32> dst;
}

// The first fields of TCP's and of UDP's header.
header ports_t {
    bit<16> src;
    bit<16> dst;
}

#define IPV4_FIELDS(h) { h.version, h.header_words, h.tos, h.length, h.identification, h.flags, \
    h.fragment, h.ttl, h.protocol, h.src, h.dst }

#endif
