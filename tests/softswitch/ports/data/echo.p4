// Does with a datagram what its first byte says; for the tests of the ports.
//
// 1, or an empty datagram: back to its sender. 2: to the controller as it came. 3: to multicast
// group 1, addressed to its sender. 4: back, but as something that is not IPv4. 5: out of port 99.
// 6: out of port 2, unchanged. 7: as 3, with each copy's instance in its UDP checksum. 8: as 7, and the
// copies of even instances come without this byte. Anything else is dropped.
#include <core.p4>
#include <v1model.p4>

header ethernet_t { bit<48> dst; bit<48> src; bit<16> type; }
header ipv4_t {
    bit<4> version; bit<4> ihl; bit<8> tos; bit<16> length;
    bit<16> id; bit<3> flags; bit<13> offset;
    bit<8> ttl; bit<8> protocol; bit<16> checksum;
    bit<32> src; bit<32> dst;
}
header udp_t { bit<16> src; bit<16> dst; bit<16> length; bit<16> checksum; }
header order_t { bit<8> code; }

struct headers_t { ethernet_t ethernet; ipv4_t ipv4; udp_t udp; order_t order; }
struct metadata_t { }

parser Parse(packet_in packet, out headers_t hdr, inout metadata_t meta,
             inout standard_metadata_t std) {
    state start {
        packet.extract(hdr.ethernet);
        transition select(hdr.ethernet.type) { 0x0800: ipv4; default: accept; }
    }
    state ipv4 {
        packet.extract(hdr.ipv4);
        transition select(hdr.ipv4.protocol) { 17: udp; default: accept; }
    }
    state udp {
        packet.extract(hdr.udp);
        transition select(hdr.udp.length) { 8: accept; default: order; }
    }
    state order { packet.extract(hdr.order); transition accept; }
}

control Check(inout headers_t hdr, inout metadata_t meta) { apply { } }

control Decide(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t std) {
    action back() {
        std.egress_spec = std.ingress_port;
        bit<48> mac = hdr.ethernet.src;
        hdr.ethernet.src = hdr.ethernet.dst;
        hdr.ethernet.dst = mac;
        bit<32> ip = hdr.ipv4.src;
        hdr.ipv4.src = hdr.ipv4.dst;
        hdr.ipv4.dst = ip;
        bit<16> port = hdr.udp.src;
        hdr.udp.src = hdr.udp.dst;
        hdr.udp.dst = port;
    }
    apply {
        mark_to_drop(std);
        if (hdr.udp.isValid()) {
            if (!hdr.order.isValid() || hdr.order.code == 1) {
                back();
            } else if (hdr.order.code == 2) {
                std.egress_spec = 255;
            } else if (hdr.order.code == 3 || hdr.order.code == 7 || hdr.order.code == 8) {
                back();
                std.mcast_grp = 1;
            } else if (hdr.order.code == 4) {
                back();
                hdr.ethernet.type = 0x88B5;
            } else if (hdr.order.code == 5) {
                std.egress_spec = 99;
            } else if (hdr.order.code == 6) {
                std.egress_spec = 2;
            }
        }
    }
}

control Stamp(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t std) {
    apply {
        if (hdr.order.isValid() && (hdr.order.code == 7 || hdr.order.code == 8)) {
            hdr.udp.checksum = std.egress_rid;
        }
        if (hdr.order.isValid() && hdr.order.code == 8 && std.egress_rid[0:0] == 0) {
            hdr.order.setInvalid();
            hdr.udp.length = hdr.udp.length - 1;
            hdr.ipv4.length = hdr.ipv4.length - 1;
        }
    }
}
control Sum(inout headers_t hdr, inout metadata_t meta) { apply { } }

control Emit(packet_out packet, in headers_t hdr) {
    apply {
        packet.emit(hdr.ethernet);
        packet.emit(hdr.ipv4);
        packet.emit(hdr.udp);
        packet.emit(hdr.order);
    }
}

V1Switch(Parse(), Check(), Decide(), Stamp(), Sum(), Emit()) main;
