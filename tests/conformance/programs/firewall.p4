// A stateful firewall without meters: answers come in only where somebody inside has asked; two
// Bloom filters, kept in registers, remember who. A question about the registers reads them out.
#include "common.p4"

const bit<16> TYPE_PEEK = 0x88b6;
#define CELLS 64

header tcp_t {
    bit<16> src;
    bit<16> dst;
    bit<32> sequence;
    bit<32> acknowledged;
    bit<4> words;
    bit<4> reserved;
    bit<8> flags;
    bit<16> window;
    bit<16> checksum;
    bit<16> urgent;
}
header peek_t {
    bit<32> index;
    bit<1> first;
    bit<1> second;
    bit<14> zero;
    bit<48> asked;
    bit<32> blocked;
}
struct headers_t { ethernet_t ethernet; peek_t peek; ipv4_t ipv4; tcp_t tcp; }
struct meta_t { bit<32> place_1; bit<32> place_2; bit<1> inside; }

parser P(packet_in packet, out headers_t hdr, inout meta_t meta, inout standard_metadata_t std) {
    state start {
        packet.extract(hdr.ethernet);
        transition select(hdr.ethernet.type) {
            TYPE_IPV4: ipv4;
            TYPE_PEEK: peek;
            default: accept;
        }
    }
    state peek { packet.extract(hdr.peek); transition accept; }
    state ipv4 {
        packet.extract(hdr.ipv4);
        transition select(hdr.ipv4.header_words, hdr.ipv4.protocol) {
            (5, PROTOCOL_TCP): tcp;
            default: accept;
        }
    }
    state tcp { packet.extract(hdr.tcp); transition accept; }
}

control V(inout headers_t hdr, inout meta_t meta) {
    apply {
        verify_checksum(hdr.ipv4.isValid(), IPV4_FIELDS(hdr.ipv4), hdr.ipv4.checksum, HashAlgorithm.csum16);
    }
}

control I(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t std) {
    register<bit<1>>(CELLS) filter_1;
    register<bit<1>>(CELLS) filter_2;
    register<bit<48>>(CELLS) asked; // how often, by place in the first filter
    register<bit<32>>(1) blocked;

    action drop() { mark_to_drop(std); }
    action to(bit<9> port, bit<1> inside) { std.egress_spec = port; meta.inside = inside; }
    table ports {
        key = { std.ingress_port: exact @name("from"); }
        actions = { to; drop; }
        const default_action = drop();
        size = 16;
    }
    action places(bit<32> ip_1, bit<32> ip_2, bit<16> port_1, bit<16> port_2) {
        hash(meta.place_1, HashAlgorithm.crc16, 32w0, { ip_1, ip_2, hdr.ipv4.protocol, port_1, port_2 },
             (bit<32>)CELLS);
        hash(meta.place_2, HashAlgorithm.crc32, 32w0, { ip_1, ip_2, hdr.ipv4.protocol, port_1, port_2 },
             (bit<32>)CELLS);
    }
    action remember() {
        filter_1.write(meta.place_1, 1);
        filter_2.write(meta.place_2, 1);
        bit<48> count;
        asked.read(count, meta.place_1);
        asked.write(meta.place_1, count + 1);
    }
    action block() {
        bit<32> count;
        blocked.read(count, 0);
        blocked.write(0, count + 1);
        drop();
    }
    action look() {
        filter_1.read(hdr.peek.first, hdr.peek.index);
        filter_2.read(hdr.peek.second, hdr.peek.index);
        asked.read(hdr.peek.asked, hdr.peek.index);
        blocked.read(hdr.peek.blocked, 0);
        std.egress_spec = std.ingress_port;
    }
    apply {
        if (std.parser_error != error.NoError || std.checksum_error == 1) {
            drop();
        } else if (hdr.peek.isValid()) {
            if (hdr.peek.index < CELLS) { look(); } else { drop(); }
        } else if (ports.apply().hit && hdr.tcp.isValid()) {
            if (meta.inside == 1) {
                places(hdr.ipv4.src, hdr.ipv4.dst, hdr.tcp.src, hdr.tcp.dst);
                if (hdr.tcp.flags & 0x12 == 0x02) { remember(); } // SYN without ACK
            } else {
                places(hdr.ipv4.dst, hdr.ipv4.src, hdr.tcp.dst, hdr.tcp.src);
                bit<1> first;
                bit<1> second;
                filter_1.read(first, meta.place_1);
                filter_2.read(second, meta.place_2);
                if (first != 1 || second != 1) { block(); }
            }
        }
    }
}

control E(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t std) { apply {} }
control C(inout headers_t hdr, inout meta_t meta) { apply {} }
control D(packet_out packet, in headers_t hdr) {
    apply {
        packet.emit(hdr.ethernet);
        packet.emit(hdr.peek);
        packet.emit(hdr.ipv4);
        packet.emit(hdr.tcp);
    }
}

V1Switch(P(), V(), I(), E(), C(), D()) main;
