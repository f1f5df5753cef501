// One of each thing that a controller can write or read; for the P4Runtime tests.
//
// A frame is Ethernet and whatever follows. exact_table forwards; the other tables set a mark, and
// `marks` counts packets by mark, so that a test can see which entry was hit.
#include <core.p4>
#include <v1model.p4>

const bit<9> CPU_PORT = 255;

@controller_header("packet_in")
header packet_in_t {
    bit<9> ingress_port;
    bit<7> reason;
}

@controller_header("packet_out")
header packet_out_t {
    bit<9> egress_port;
    bit<7> unused;
}

header ethernet_t {
    bit<48> dst;
    bit<48> src;
    bit<16> type;
}

struct headers_t {
    packet_in_t to_controller;
    packet_out_t from_controller;
    ethernet_t ethernet;
}

struct metadata_t {
    bit<16> mark;
}

parser Parse(packet_in packet, out headers_t hdr, inout metadata_t meta,
             inout standard_metadata_t std) {
    state start {
        transition select(std.ingress_port) {
            CPU_PORT: controller;
            default: ethernet;
        }
    }
    state controller {
        packet.extract(hdr.from_controller);
        transition ethernet;
    }
    state ethernet {
        packet.extract(hdr.ethernet);
        transition accept;
    }
}

control Check(inout headers_t hdr, inout metadata_t meta) { apply { } }

control Forward(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t std) {
    counter(16, CounterType.packets_and_bytes) seen;
    counter(8, CounterType.packets) marks;
    direct_counter(CounterType.packets_and_bytes) hits;
    register<bit<32>>(4) cells;

    action drop() { mark_to_drop(std); }
    action forward(bit<9> port) { std.egress_spec = port; }
    action replicate(bit<16> group) { std.mcast_grp = group; }
    action punt(bit<7> reason) {
        hdr.to_controller.setValid();
        hdr.to_controller.ingress_port = std.ingress_port;
        hdr.to_controller.reason = reason;
        std.egress_spec = CPU_PORT;
    }
    action mark(bit<16> value) { meta.mark = value; }

    table exact_table {
        key = { hdr.ethernet.dst: exact; std.ingress_port: exact; }
        actions = { forward; replicate; punt; drop; @defaultonly NoAction; }
        default_action = NoAction();
        counters = hits;
        size = 8;
    }
    table lpm_table {
        key = { hdr.ethernet.src: lpm; }
        actions = { mark; @tableonly forward; NoAction; }
        default_action = NoAction();
        size = 64;
    }
    table ternary_table {
        key = { hdr.ethernet.type: ternary; hdr.ethernet.src: exact; }
        actions = { mark; NoAction; }
        default_action = mark(7);
        size = 64;
    }
    table range_table {
        key = { hdr.ethernet.type: range; hdr.ethernet.dst: optional; }
        actions = { mark; NoAction; }
        size = 64;
    }
    table const_table {
        key = { hdr.ethernet.type: ternary; }
        actions = { mark; NoAction; }
        const default_action = NoAction();
        const entries = {
            0x0800: mark(4);
            0x8000 &&& 0xf000: mark(8);
        }
    }
    table keyless_table {
        actions = { mark; NoAction; }
    }

    apply {
        seen.count((bit<32>)std.ingress_port & 15);
        cells.write(0, std.packet_length);
        if (hdr.from_controller.isValid()) {
            std.egress_spec = hdr.from_controller.egress_port;
            hdr.from_controller.setInvalid();
        } else {
            exact_table.apply();
            lpm_table.apply();
            ternary_table.apply();
            range_table.apply();
            const_table.apply();
            keyless_table.apply();
            marks.count((bit<32>)meta.mark & 7);
        }
    }
}

control Stamp(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t std) {
    apply {
        if (std.egress_rid != 0) {
            hdr.ethernet.type = std.egress_rid;
        }
    }
}

control Sum(inout headers_t hdr, inout metadata_t meta) { apply { } }

control Emit(packet_out packet, in headers_t hdr) {
    apply {
        packet.emit(hdr.to_controller);
        packet.emit(hdr.ethernet);
    }
}

V1Switch(Parse(), Check(), Forward(), Stamp(), Sum(), Emit()) main;
