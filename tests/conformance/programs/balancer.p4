// A load balancer: a hash over the 5-tuple picks one of a service's backends.
#include "common.p4"

struct headers_t { ethernet_t ethernet; ipv4_t ipv4; ports_t ports; }
struct meta_t { bit<16> pick; bit<16> service; }

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

#define TUPLE { hdr.ipv4.src, hdr.ipv4.dst, hdr.ipv4.protocol, hdr.ports.src, hdr.ports.dst }

control I(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t std) {
    direct_counter(CounterType.packets) sent;

    action none() { mark_to_drop(std); }
    // Over `count` backends from number `base` on.
    action by_crc16(bit<16> service, bit<16> base, bit<32> count) {
        meta.service = service;
        hash(meta.pick, HashAlgorithm.crc16, base, TUPLE, count);
    }
    action by_crc32(bit<16> service, bit<16> base, bit<32> count) {
        meta.service = service;
        hash(meta.pick, HashAlgorithm.crc32, base, TUPLE, count);
    }
    action by_sum(bit<16> service, bit<16> base, bit<32> count) {
        meta.service = service;
        hash(meta.pick, HashAlgorithm.csum16, base, TUPLE, count);
    }
    // Not a multiple of 8 bits, and fields that a byte boundary cuts.
    action by_odd_fields(bit<16> service, bit<16> base, bit<32> count) {
        meta.service = service;
        hash(meta.pick, HashAlgorithm.crc16, base,
             { hdr.ports.src[10:0], hdr.ipv4.src, hdr.ipv4.fragment, hdr.ports.dst[2:0] }, count);
    }
    table services {
        key = { hdr.ipv4.dst: exact @name("ip"); hdr.ports.dst: exact @name("port"); }
        actions = { by_crc16; by_crc32; by_sum; by_odd_fields; none; }
        const default_action = none();
        size = 16;
    }
    action backend(bit<48> mac, bit<32> ip, bit<9> port) {
        sent.count();
        hdr.ethernet.dst = mac;
        hdr.ipv4.dst = ip;
        hdr.ipv4.identification = meta.pick; // which one it was
        std.egress_spec = port;
    }
    action gone() { sent.count(); mark_to_drop(std); }
    table backends {
        key = { meta.service: exact @name("service"); meta.pick: exact @name("number"); }
        actions = { backend; gone; }
        const default_action = gone();
        counters = sent;
        size = 256;
    }
    apply {
        if (hdr.ports.isValid()) {
            if (services.apply().hit) { backends.apply(); }
        } else {
            none();
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
    apply { packet.emit(hdr.ethernet); packet.emit(hdr.ipv4); packet.emit(hdr.ports); }
}

V1Switch(P(), V(), I(), E(), C(), D()) main;
