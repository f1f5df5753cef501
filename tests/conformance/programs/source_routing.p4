// Source routing: the sender lists the ports on the way; each switch takes the first one off.
#include "common.p4"

const bit<16> TYPE_SOURCE_ROUTE = 0x1234;
#define HOPS 5

header hop_t {
    bit<1> last;
    bit<15> port;
}
struct headers_t { ethernet_t ethernet; hop_t[HOPS] hops; ipv4_t ipv4; }
struct meta_t {}

parser P(packet_in packet, out headers_t hdr, inout meta_t meta, inout standard_metadata_t std) {
    state start {
        packet.extract(hdr.ethernet);
        transition select(hdr.ethernet.type) {
            TYPE_SOURCE_ROUTE: hops;
            TYPE_IPV4: ipv4;
            default: accept;
        }
    }
    state hops {
        packet.extract(hdr.hops.next);
        transition select(hdr.hops.last.last) { 1: ipv4; default: hops; }
    }
    state ipv4 { packet.extract(hdr.ipv4); transition accept; }
}

control V(inout headers_t hdr, inout meta_t meta) { apply {} }

control I(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t std) {
    counter(HOPS + 1, CounterType.packets) lengths;

    apply {
        // What ends in the middle of IPv4 travels all the same; a list too long does not.
        if (!hdr.hops[0].isValid() || std.parser_error == error.StackOutOfBounds) {
            mark_to_drop(std);
        } else {
            bit<32> length = 1;
            if (hdr.hops[4].isValid()) { length = 5; }
            else if (hdr.hops[3].isValid()) { length = 4; }
            else if (hdr.hops[2].isValid()) { length = 3; }
            else if (hdr.hops[1].isValid()) { length = 2; }
            lengths.count(length);
            std.egress_spec = (bit<9>)hdr.hops[0].port;
            if (hdr.hops[0].last == 1) { hdr.ethernet.type = TYPE_IPV4; }
            hdr.hops.pop_front(1);
            if (hdr.ipv4.isValid()) { hdr.ipv4.ttl = hdr.ipv4.ttl - 1; }
        }
    }
}

control E(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t std) { apply {} }

control C(inout headers_t hdr, inout meta_t meta) {
    apply {
        update_checksum(hdr.ipv4.isValid(), IPV4_FIELDS(hdr.ipv4), hdr.ipv4.checksum, HashAlgorithm.csum16);
    }
}

control D(packet_out packet, in headers_t hdr) {
    apply { packet.emit(hdr.ethernet); packet.emit(hdr.hops); packet.emit(hdr.ipv4); }
}

V1Switch(P(), V(), I(), E(), C(), D()) main;
