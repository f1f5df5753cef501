// Registers, counters, header stacks, multicast, drops, checksums, hashes, loops, exit, truncate.
#include <core.p4>
#include <v1model.p4>

header order_t {
    bit<8> what;
    bit<16> x;
    bit<32> y;
    bit<16> sum;
    bit<64> z;
}

header item_t {
    bit<8> v;
}

struct headers_t {
    order_t order;
    item_t count;
    item_t[4] items;
}

struct meta_t {
    bit<8> wanted;
    bit<8> left;
}

parser TestParser(packet_in packet, out headers_t hdr, inout meta_t meta,
                  inout standard_metadata_t standard) {
    state start {
        packet.extract(hdr.order);
        packet.extract(hdr.count);
        meta.left = hdr.count.v;
        transition select(hdr.count.v) { 0: accept; default: items; }
    }
    state items {
        packet.extract(hdr.items.next);
        meta.left = meta.left - 1;
        transition select(meta.left) { 0: accept; default: items; }
    }
}

control Verify(inout headers_t hdr, inout meta_t meta) {
    apply {
        verify_checksum(hdr.order.what == 20, { hdr.order.what, hdr.order.x, hdr.order.y },
                        hdr.order.sum, HashAlgorithm.csum16);
    }
}

control TestIngress(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t standard) {
    register<bit<32>>(8) cells;
    register<bit<12>>(8) narrow;
    register<bit<100>>(4) broad;
    counter(4, CounterType.packets_and_bytes) seen;

    action add_cell() {
        bit<32> v;
        cells.read(v, (bit<32>)hdr.order.x);
        v = v + hdr.order.y;
        cells.write((bit<32>)hdr.order.x, v);
        hdr.order.y = v;
    }
    action add_narrow() {
        bit<12> v;
        narrow.read(v, (bit<32>)hdr.order.x);
        v = v + hdr.order.y[11:0];
        narrow.write((bit<32>)hdr.order.x, v);
        hdr.order.y = (bit<32>)v;
    }
    action add_broad() {
        bit<100> v;
        broad.read(v, (bit<32>)hdr.order.x);
        v = v + ((bit<100>)hdr.order.z << 30);
        broad.write((bit<32>)hdr.order.x, v);
        hdr.order.z = v[99:36];
    }
    // A loop that cannot be unrolled: 1 + 2 + … + x.
    action sum_up() {
        bit<32> total = 0;
        for (bit<32> i = 1; i <= (bit<32>)hdr.order.x; i = i + 1) {
            if (i == 1000) { break; }
            total = total + i;
        }
        hdr.order.y = total;
    }
    action pick() { hdr.order.x = (bit<16>)hdr.items[hdr.order.y].v; }
    action put() { hdr.items[hdr.order.y].v = (bit<8>)hdr.order.x; }
    action early() {
        hdr.order.y = 1;
        if (hdr.order.x == 1) { return; }
        hdr.order.y = 2;
    }

    apply {
        standard.egress_spec = standard.ingress_port;
        if (hdr.order.what == 1) { add_cell(); }
        else if (hdr.order.what == 2) { add_narrow(); }
        else if (hdr.order.what == 3) { add_broad(); }
        else if (hdr.order.what == 4) { seen.count((bit<32>)hdr.order.x); }
        else if (hdr.order.what == 5) { hdr.items.push_front(2); hdr.items[0].setValid(); hdr.items[0].v = 0xee; }
        else if (hdr.order.what == 6) { hdr.items.pop_front(1); }
        else if (hdr.order.what == 7) { pick(); }
        else if (hdr.order.what == 8) { put(); }
        else if (hdr.order.what == 9) { standard.mcast_grp = hdr.order.x; }
        else if (hdr.order.what == 10) { mark_to_drop(standard); }
        else if (hdr.order.what == 11) { mark_to_drop(standard); standard.egress_spec = 3; }
        else if (hdr.order.what == 12) { standard.mcast_grp = hdr.order.x; mark_to_drop(standard); }
        else if (hdr.order.what == 13) { truncate((bit<32>)hdr.order.x); }
        else if (hdr.order.what == 14) { hdr.order.y = 0xdead; exit; }
        else if (hdr.order.what == 15) { hash(hdr.order.y, HashAlgorithm.crc32, 32w0, { hdr.order.x, hdr.order.z }, 64w0x100000000); }
        else if (hdr.order.what == 16) { hash(hdr.order.y, HashAlgorithm.crc16, 32w7, { hdr.order.x, hdr.order.z }, 64w1000); }
        else if (hdr.order.what == 17) { hash(hdr.order.y, HashAlgorithm.identity, 32w0, { hdr.order.x, hdr.order.what, hdr.order.x[2:0] }, 64w0x100000000); }
        else if (hdr.order.what == 18) { hash(hdr.order.y, HashAlgorithm.xor16, 32w0, { hdr.order.x, hdr.order.z, hdr.order.what }, 64w0x10000); }
        else if (hdr.order.what == 19) { hash(hdr.order.y, HashAlgorithm.csum16, 32w0, { hdr.order.x, hdr.order.z }, 64w0x10000); }
        else if (hdr.order.what == 20) { hdr.order.y = (bit<32>)standard.checksum_error; }
        else if (hdr.order.what == 21) { sum_up(); }
        else if (hdr.order.what == 22) { early(); }
        else if (hdr.order.what == 23) { random(hdr.order.y, 32w10, 32w13); }
        else if (hdr.order.what == 24) { hdr.count = { hdr.order.x[7:0] }; hdr.items[3] = hdr.items[0]; }
        else if (hdr.order.what == 25) { hdr.order.y = standard.packet_length; hdr.items[0].setInvalid(); hdr.items[0].setInvalid(); }
        else if (hdr.order.what == 26) { assert(hdr.order.x != 9); hdr.order.y = 26; }
        else if (hdr.order.what == 27) { log_msg("x is {} and {}", { hdr.order.x, hdr.order.z }); }
        else if (hdr.order.what == 28) { hdr.order.setInvalid(); }
        else if (hdr.order.what == 29) { if (hdr.items[0] == hdr.items[1]) { hdr.order.y = 1; } else { hdr.order.y = 2; } }
        else if (hdr.order.what == 30) { standard.egress_spec = 511; }
        else if (hdr.order.what == 31) { hdr.order.z = (bit<64>)standard.ingress_global_timestamp; }
        if (hdr.order.what != 31) { hdr.order.z = hdr.order.z + 1; }
        meta.wanted = hdr.order.what;
    }
}

control TestEgress(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t standard) {
    apply {
        if (meta.wanted == 9) {
            hdr.order.x = standard.egress_rid;
            hdr.order.y = hdr.order.y + standard.instance_type;
            hdr.order.z = (bit<64>)standard.egress_port;
            hdr.items.push_front(1);
            if (standard.egress_rid == 13) { mark_to_drop(standard); }
        } else if (meta.wanted == 25) {
            hdr.order.z = (bit<64>)standard.packet_length;
        } else {
            hdr.order.z = hdr.order.z + (bit<64>)standard.instance_type;
        }
    }
}

control Update(inout headers_t hdr, inout meta_t meta) {
    apply {
        update_checksum(meta.wanted == 20, { hdr.order.what, hdr.order.x, hdr.order.y, 8w0xff },
                        hdr.order.sum, HashAlgorithm.csum16);
        update_checksum_with_payload(meta.wanted == 1, { hdr.order.what, hdr.order.x, hdr.order.y },
                                     hdr.order.sum, HashAlgorithm.csum16);
    }
}

control TestDeparser(packet_out packet, in headers_t hdr) {
    apply { packet.emit(hdr); }
}

V1Switch(TestParser(), Verify(), TestIngress(), TestEgress(), Update(), TestDeparser()) main;
