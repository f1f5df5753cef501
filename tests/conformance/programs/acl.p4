// An access list: ternary addresses, ranges of ports, an optional protocol; the highest priority
// wins. What is allowed goes to a group of ports, pruned at the port that it came from.
#include "common.p4"

struct headers_t { ethernet_t ethernet; ipv4_t ipv4; ports_t ports; }
struct meta_t { bit<1> pruned; bit<8> class; }

parser P(packet_in packet, out headers_t hdr, inout meta_t meta, inout standard_metadata_t std) {
    state start {
        packet.extract(hdr.ethernet);
        transition select(hdr.ethernet.type) { TYPE_IPV4: ipv4; default: accept; }
    }
    state ipv4 {
        packet.extract(hdr.ipv4);
        transition select(hdr.ipv4.fragment, hdr.ipv4.protocol) {
            (0, PROTOCOL_TCP): ports;
            (0, PROTOCOL_UDP): ports;
            default: accept;
        }
    }
    state ports { packet.extract(hdr.ports); transition accept; }
}

control V(inout headers_t hdr, inout meta_t meta) { apply {} }

control I(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t std) {
    direct_counter(CounterType.packets_and_bytes) hits;

    action deny() { hits.count(); mark_to_drop(std); }
    action allow(bit<8> class, bit<16> group) {
        hits.count();
        meta.class = class;
        meta.pruned = 1;
        std.mcast_grp = group;
    }
    action redirect(bit<9> port) { hits.count(); std.egress_spec = port; }
    table rules {
        key = {
            hdr.ipv4.src: ternary @name("src");
            hdr.ipv4.dst: ternary @name("dst");
            hdr.ports.dst: range @name("port");
            hdr.ipv4.protocol: optional @name("protocol");
            hdr.ports.isValid(): exact @name("has_ports");
        }
        actions = { deny; allow; redirect; }
        const default_action = deny();
        counters = hits;
        size = 128;
    }
    apply {
        if (hdr.ipv4.isValid()) { rules.apply(); } else { mark_to_drop(std); }
    }
}

control E(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t std) {
    counter(16, CounterType.packets) copies; // by egress port, modulo 16

    apply {
        if (meta.pruned == 1) {
            if (std.egress_port == std.ingress_port) {
                mark_to_drop(std);
            } else {
                copies.count((bit<32>)(std.egress_port & 15));
                // Each copy says which it is.
                hdr.ipv4.tos = meta.class;
                hdr.ipv4.identification = std.egress_rid;
            }
        }
    }
}

control C(inout headers_t hdr, inout meta_t meta) {
    apply {
        update_checksum(hdr.ipv4.isValid(), IPV4_FIELDS(hdr.ipv4), hdr.ipv4.checksum, HashAlgorithm.csum16);
    }
}

control D(packet_out packet, in headers_t hdr) {
    apply { packet.emit(hdr.ethernet); packet.emit(hdr.ipv4); packet.emit(hdr.ports); }
}

V1Switch(P(), V(), I(), E(), C(), D()) main;
