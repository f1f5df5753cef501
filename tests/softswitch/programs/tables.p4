// Match-action tables of every kind, and what follows from their results.
#include <core.p4>
#include <v1model.p4>

header query_t {
    bit<8> which;
    bit<16> a;
    bit<32> b;
    bit<128> c;
    bit<7> d;
    bit<1> e;
}

header answer_t {
    bit<8> action_number;
    bit<8> after;
    bit<16> small;
    bit<128> large;
}

struct headers_t {
    query_t query;
    answer_t answer;
}

struct meta_t {}

parser TestParser(packet_in packet, out headers_t hdr, inout meta_t meta,
                  inout standard_metadata_t standard) {
    state start { packet.extract(hdr.query); transition accept; }
}

control Verify(inout headers_t hdr, inout meta_t meta) { apply {} }

control TestIngress(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t standard) {
    direct_counter(CounterType.packets_and_bytes) exact_hits;

    action set(bit<16> small, bit<128> large) {
        hdr.answer.action_number = 1;
        hdr.answer.small = small;
        hdr.answer.large = large;
    }
    action mark(bit<8> number) { hdr.answer.action_number = number; }
    action stop() { hdr.answer.action_number = 77; exit; }

    table exact_table {
        key = { hdr.query.a: exact; hdr.query.c: exact @name("c"); hdr.query.e: exact; }
        actions = { set; mark; stop; @defaultonly NoAction; }
        default_action = NoAction();
        counters = exact_hits;
        size = 4;
    }
    table lpm_table {
        key = { hdr.query.d: exact; hdr.query.b: lpm; }
        actions = { mark; }
        default_action = mark(200);
    }
    table ternary_table {
        key = { hdr.query.b: ternary; hdr.query.c: ternary; hdr.query.d: lpm; }
        actions = { mark; NoAction; }
        const default_action = mark(201);
    }
    table range_table {
        key = { hdr.query.a: range; hdr.query.b: optional; hdr.answer.isValid(): exact; }
        actions = { mark; }
        default_action = mark(202);
    }
    table const_table {
        key = { hdr.query.a: ternary; }
        actions = { mark; stop; }
        default_action = mark(203);
        const entries = {
            0x1200 &&& 0xff00: mark(10);
            0x1234: mark(11);
            0x0004 &&& 0x000f: stop();
        }
    }
    @name(".absolute") table keyless {
        actions = { mark; }
        default_action = mark(5);
    }
    table sliced {
        key = { hdr.query.b[15:8]: exact @name("slice"); hdr.query.a & 0x0ff0: exact @name("masked"); }
        actions = { mark; NoAction; }
        default_action = NoAction();
    }
    table invalid_table {
        key = { hdr.query.d: exact; hdr.query.b: ternary; }
        actions = { mark; }
        default_action = mark(204);
    }
    table run_table {
        key = { hdr.query.d: exact; }
        actions = { mark; set; NoAction; }
        default_action = NoAction();
    }

    apply {
        standard.egress_spec = standard.ingress_port;
        hdr.answer.setValid();
        if (hdr.query.which == 0) {
            if (exact_table.apply().hit) { hdr.answer.after = 1; } else { hdr.answer.after = 2; }
        } else if (hdr.query.which == 1) {
            lpm_table.apply();
        } else if (hdr.query.which == 2) {
            ternary_table.apply();
        } else if (hdr.query.which == 3) {
            range_table.apply();
        } else if (hdr.query.which == 4) {
            const_table.apply();
        } else if (hdr.query.which == 5) {
            keyless.apply();
        } else if (hdr.query.which == 6) {
            if (!sliced.apply().hit) { hdr.answer.after = 9; }
        } else if (hdr.query.which == 7) {
            switch (run_table.apply().action_run) {
                mark: { hdr.answer.after = 31; }
                set: { hdr.answer.after = 32; }
                default: { hdr.answer.after = 33; }
            }
        } else if (hdr.query.which == 8) {
            hdr.query.setInvalid();
            invalid_table.apply();  // the fields of a header that is not valid count as 0
        }
        hdr.answer.after = hdr.answer.after + 100;
    }
}

control TestEgress(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t standard) {
    apply {}
}

control Update(inout headers_t hdr, inout meta_t meta) { apply {} }

control TestDeparser(packet_out packet, in headers_t hdr) {
    apply { packet.emit(hdr); }
}

V1Switch(TestParser(), Verify(), TestIngress(), TestEgress(), Update(), TestDeparser()) main;
