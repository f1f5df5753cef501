// The parser: select with masks, ranges and several keys, lookahead, header stacks, verify, advance,
// and every error; the deparser. Each packet comes back through its own port with a report.
#include <core.p4>
#include <v1model.p4>

error { BadTag }

header start_t {
    bit<8> kind;
    bit<4> nibble;
    bit<12> twelve;
    bit<8> skip;
}

header tag_t {
    bit<3> a;
    bit<12> b;
    bit<1> last;
}

header wide_t {
    bit<4> head;
    bit<120> value;
    bit<4> tail;
}

// An array in the generated code.
header run_t {
    bit<16> f0; bit<16> f1; bit<16> f2; bit<16> f3; bit<16> f4;
    bit<16> f5; bit<16> f6; bit<16> f7; bit<16> f8; bit<8> end;
}

header report_t {
    bit<32> error_code;
    bit<8> path;
    bit<8> seen;
    bit<8> tags;
    bit<32> packet_length;
}

struct headers_t {
    report_t report;
    start_t start;
    tag_t[3] tags;
    wide_t wide;
    run_t run;
}

struct meta_t {
    bit<8> path;
    bit<8> seen;
}

parser TestParser(packet_in packet, out headers_t hdr, inout meta_t meta,
                  inout standard_metadata_t standard) {
    state start {
        packet.extract(hdr.start);
        transition select(hdr.start.kind, standard.ingress_port) {
            (1, 7): by_port;
            (1, _): tags;
            (2, _): wide;
            (3, _): run;
            (0x40 &&& 0xf0, _): masked;
            (0x51..0x56, _): ranged;
            (4, _): skip;
            (5, _): verified;
            (6, _): peek;
        }
    }
    state by_port { meta.path = 1; transition accept; }
    state tags {
        meta.path = 2;
        packet.extract(hdr.tags.next);
        transition select(hdr.tags.last.last) {
            0: tags;
            1: accept;
        }
    }
    state wide {
        meta.path = 3;
        packet.extract(hdr.wide);
        transition select(hdr.wide.value) {
            0x0123456789abcdef00112233445566: run;
            default: accept;
        }
    }
    state run { meta.path = meta.path + 16; packet.extract(hdr.run); transition accept; }
    state masked { meta.path = 4; transition accept; }
    state ranged { meta.path = 5; transition accept; }
    state skip {
        meta.path = 6;
        packet.advance((bit<32>)hdr.start.skip);
        transition tags;
    }
    state verified {
        meta.path = 7;
        verify(hdr.start.nibble != 9, error.BadTag);
        verify(hdr.start.twelve < 100, error.HeaderTooShort);
        transition accept;
    }
    state peek {
        meta.seen = packet.lookahead<bit<16>>()[7:0];
        transition select(packet.lookahead<bit<12>>()) {
            0xabc: tags;
            default: accept;
        }
    }
}

control Verify(inout headers_t hdr, inout meta_t meta) { apply {} }

control TestIngress(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t standard) {
    apply {
        hdr.report.setValid();
        hdr.report.error_code = 0;
        if (standard.parser_error == error.NoError) { hdr.report.error_code = 0; }
        else if (standard.parser_error == error.PacketTooShort) { hdr.report.error_code = 1; }
        else if (standard.parser_error == error.NoMatch) { hdr.report.error_code = 2; }
        else if (standard.parser_error == error.StackOutOfBounds) { hdr.report.error_code = 3; }
        else if (standard.parser_error == error.HeaderTooShort) { hdr.report.error_code = 4; }
        else if (standard.parser_error == error.ParserInvalidArgument) { hdr.report.error_code = 6; }
        else if (standard.parser_error == error.BadTag) { hdr.report.error_code = 100; }
        else { hdr.report.error_code = 99; }
        hdr.report.path = meta.path;
        hdr.report.seen = meta.seen;
        hdr.report.packet_length = standard.packet_length;
        hdr.report.tags = (bit<8>)(bit<1>)hdr.tags[0].isValid() + (bit<8>)(bit<1>)hdr.tags[1].isValid()
            + (bit<8>)(bit<1>)hdr.tags[2].isValid();
        if (hdr.run.isValid()) { hdr.run.f3 = hdr.run.f3 + 1; }
        if (hdr.wide.isValid()) { hdr.wide.head = hdr.wide.tail; }
        standard.egress_spec = standard.ingress_port;
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
