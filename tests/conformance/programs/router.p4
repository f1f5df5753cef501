// An IPv4 router: longest prefix, next hop's address, time to live, header checksum.
#include "common.p4"

struct headers_t { ethernet_t ethernet; ipv4_t ipv4; }
struct meta_t { bit<32> next_hop; }

parser P(packet_in packet, out headers_t hdr, inout meta_t meta, inout standard_metadata_t std) {
    state start {
        packet.extract(hdr.ethernet);
        transition select(hdr.ethernet.type) { TYPE_IPV4: ipv4; default: accept; }
    }
    state ipv4 {
        packet.extract(hdr.ipv4);
        verify(hdr.ipv4.version == 4, error.ParserInvalidArgument);
        transition accept;
    }
}

control V(inout headers_t hdr, inout meta_t meta) {
    apply {
        verify_checksum(hdr.ipv4.isValid(), IPV4_FIELDS(hdr.ipv4), hdr.ipv4.checksum, HashAlgorithm.csum16);
    }
}

control I(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t std) {
    counter(4, CounterType.packets_and_bytes) discarded; // 0: not IPv4, 1: bad, 2: no route, 3: expired
    direct_counter(CounterType.packets_and_bytes) routed;

    action discard(bit<32> why) { discarded.count(why); mark_to_drop(std); }
    action no_route() { routed.count(); discard(2); }
    action via(bit<32> next_hop, bit<9> port) {
        routed.count();
        meta.next_hop = next_hop;
        std.egress_spec = port;
    }
    action direct(bit<9> port) {
        routed.count();
        meta.next_hop = hdr.ipv4.dst;
        std.egress_spec = port;
    }
    table routes {
        key = { hdr.ipv4.dst: lpm @name("dst"); }
        actions = { via; direct; no_route; }
        default_action = no_route();
        counters = routed;
        size = 64;
    }
    action neighbour(bit<48> mac) { hdr.ethernet.dst = mac; }
    action unknown_neighbour() { mark_to_drop(std); }
    table neighbours {
        key = { meta.next_hop: exact @name("ip"); }
        actions = { neighbour; unknown_neighbour; }
        const default_action = unknown_neighbour();
        size = 64;
    }
    apply {
        if (std.parser_error != error.NoError || std.checksum_error == 1) {
            discard(1);
        } else if (!hdr.ipv4.isValid()) {
            discard(0);
        } else if (hdr.ipv4.ttl <= 1) {
            discard(3);
        } else if (routes.apply().hit) {
            if (neighbours.apply().hit) { hdr.ipv4.ttl = hdr.ipv4.ttl - 1; }
        }
    }
}

control E(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t std) {
    action from(bit<48> mac) { hdr.ethernet.src = mac; }
    table interfaces {
        key = { std.egress_port: exact @name("port"); }
        actions = { from; NoAction; }
        default_action = NoAction();
        size = 16;
    }
    apply { interfaces.apply(); }
}

control C(inout headers_t hdr, inout meta_t meta) {
    apply {
        update_checksum(hdr.ipv4.isValid(), IPV4_FIELDS(hdr.ipv4), hdr.ipv4.checksum, HashAlgorithm.csum16);
    }
}

control D(packet_out packet, in headers_t hdr) {
    apply { packet.emit(hdr.ethernet); packet.emit(hdr.ipv4); }
}

V1Switch(P(), V(), I(), E(), C(), D()) main;
