// A calculator: operands in, result out, back to where the question came from.
#include "common.p4"

const bit<16> TYPE_CALCULATOR = 0x1234;

header question_t {
    bit<8> p;
    bit<8> four;
    bit<8> version;
    bit<8> op;
    bit<32> a;
    bit<32> b;
    bit<32> result;
}
struct headers_t { ethernet_t ethernet; question_t question; }
struct meta_t {}

parser P(packet_in packet, out headers_t hdr, inout meta_t meta, inout standard_metadata_t std) {
    state start {
        packet.extract(hdr.ethernet);
        transition select(hdr.ethernet.type) { TYPE_CALCULATOR: check; default: accept; }
    }
    state check {
        transition select(packet.lookahead<bit<24>>()) { 0x503401: question; default: accept; }
    }
    state question { packet.extract(hdr.question); transition accept; }
}

control V(inout headers_t hdr, inout meta_t meta) { apply {} }

control I(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t std) {
    action answer(bit<32> result) {
        hdr.question.result = result;
        bit<48> asked = hdr.ethernet.dst;
        hdr.ethernet.dst = hdr.ethernet.src;
        hdr.ethernet.src = asked;
        std.egress_spec = std.ingress_port;
    }
    action add() { answer(hdr.question.a + hdr.question.b); }
    action sub() { answer(hdr.question.a - hdr.question.b); }
    action mul() { answer(hdr.question.a * hdr.question.b); }
    action band() { answer(hdr.question.a & hdr.question.b); }
    action bor() { answer(hdr.question.a | hdr.question.b); }
    action bxor() { answer(hdr.question.a ^ hdr.question.b); }
    action left() { answer(hdr.question.a << (bit<8>)hdr.question.b); }
    action right() { answer(hdr.question.a >> (bit<8>)hdr.question.b); }
    action arithmetic_right() { answer((bit<32>)((int<32>)hdr.question.a >> (bit<8>)hdr.question.b)); }
    action saturating() { answer(hdr.question.a |+| hdr.question.b); }
    action signed_saturating() {
        answer((bit<32>)((int<32>)hdr.question.a |-| (int<32>)hdr.question.b));
    }
    action less() { answer(hdr.question.a < hdr.question.b ? 32w1 : 32w0); }
    action signed_less() {
        answer((int<32>)hdr.question.a < (int<32>)hdr.question.b ? 32w1 : 32w0);
    }
    action high() { answer((bit<32>)(((bit<64>)hdr.question.a * (bit<64>)hdr.question.b) >> 32)); }
    // The largest common divisor, by Euclid: a loop whose length the packet decides.
    action gcd() {
        bit<32> x = hdr.question.a;
        bit<32> y = hdr.question.b;
        for (bit<8> i = 0; i < 200; i = i + 1) {
            if (x == 0 || y == 0) { break; }
            if (x >= y) { x = x - y; } else { y = y - x; }
        }
        answer(x | y);
    }
    action refuse() { mark_to_drop(std); }
    table operations {
        key = { hdr.question.op: exact @name("op"); }
        actions = {
            add; sub; mul; band; bor; bxor; left; right; arithmetic_right; saturating;
            signed_saturating; less; signed_less; high; gcd; refuse;
        }
        const default_action = refuse();
        const entries = {
            0x2b: add(); 0x2d: sub(); 0x2a: mul(); 0x26: band(); 0x7c: bor(); 0x5e: bxor();
            1: left(); 2: right(); 3: arithmetic_right(); 4: saturating(); 5: signed_saturating();
            6: less(); 7: signed_less(); 8: high(); 9: gcd();
        }
    }
    apply {
        if (hdr.question.isValid()) { operations.apply(); } else { refuse(); }
    }
}

control E(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t std) { apply {} }
control C(inout headers_t hdr, inout meta_t meta) { apply {} }
control D(packet_out packet, in headers_t hdr) {
    apply { packet.emit(hdr.ethernet); packet.emit(hdr.question); }
}

V1Switch(P(), V(), I(), E(), C(), D()) main;
