// Arithmetic of every kind on fields from 8 to 2048 bits, signed and not: what the packet asks for.
#include <core.p4>
#include <v1model.p4>

header order_t {
    bit<8> op;
    bit<8> shape;
}

// a and b are the operands, r takes the result, s is the same as a signed number.
#define OPERANDS(W, PAD) header operands_##W##_t { \
    bit<W> a; bit<W> b; bit<W> r; int<W> s; int<W> t; PAD }
OPERANDS(8, )
OPERANDS(13, bit<7> pad;)
OPERANDS(32, )
OPERANDS(48, )
OPERANDS(64, )
OPERANDS(100, bit<4> pad;)
OPERANDS(256, )
header long_t { bit<2048> a; bit<2048> b; bit<2048> r; }

struct headers_t {
    order_t order;
    operands_8_t o8;
    operands_13_t o13;
    operands_32_t o32;
    operands_48_t o48;
    operands_64_t o64;
    operands_100_t o100;
    operands_256_t o256;
    long_t o2048;
}

struct meta_t {}

parser TestParser(packet_in packet, out headers_t hdr, inout meta_t meta,
                  inout standard_metadata_t standard) {
    state start {
        packet.extract(hdr.order);
        transition select(hdr.order.shape) {
            0: s8; 1: s13; 2: s32; 3: s48; 4: s64; 5: s100; 6: s256; 7: s2048;
            default: accept;
        }
    }
    state s8 { packet.extract(hdr.o8); transition accept; }
    state s13 { packet.extract(hdr.o13); transition accept; }
    state s32 { packet.extract(hdr.o32); transition accept; }
    state s48 { packet.extract(hdr.o48); transition accept; }
    state s64 { packet.extract(hdr.o64); transition accept; }
    state s100 { packet.extract(hdr.o100); transition accept; }
    state s256 { packet.extract(hdr.o256); transition accept; }
    state s2048 { packet.extract(hdr.o2048); transition accept; }
}

control Verify(inout headers_t hdr, inout meta_t meta) { apply {} }

// Op 32 and above concern the signed fields.
#define CALCULATE(W, H, HALF) \
    action calculate_##W() { \
        bit<W> a = H.a; bit<W> b = H.b; int<W> s = H.s; int<W> t = H.t; \
        if (op == 0) { H.r = a + b; } \
        else if (op == 1) { H.r = a - b; } \
        else if (op == 2) { H.r = a * b; } \
        else if (op == 3) { H.r = a & b; } \
        else if (op == 4) { H.r = a | b; } \
        else if (op == 5) { H.r = a ^ b; } \
        else if (op == 6) { H.r = ~a; } \
        else if (op == 7) { H.r = a |+| b; } \
        else if (op == 8) { H.r = a |-| b; } \
        else if (op == 9) { H.r = a << b[7:0]; } \
        else if (op == 10) { H.r = a >> b[7:0]; } \
        else if (op == 11) { H.r = (bit<W>)(bit<1>)(a < b); } \
        else if (op == 12) { H.r = (bit<W>)(bit<1>)(a >= b); } \
        else if (op == 13) { H.r = (bit<W>)(bit<1>)(a == b); } \
        else if (op == 14) { H.r = a > b ? a : b; } \
        else if (op == 15) { H.r = (bit<W>)a[HALF:1]; } \
        else if (op == 16) { H.r[HALF:0] = b[HALF:0]; } \
        else if (op == 17) { H.r = -a; } \
        else if (op == 18) { H.r = (a + b) >> 3; } \
        else if (op == 19) { H.r = (bit<W>)(b ++ a); } \
        else if (op == 32) { H.s = s + t; } \
        else if (op == 33) { H.s = s - t; } \
        else if (op == 34) { H.s = s * t; } \
        else if (op == 35) { H.s = s |+| t; } \
        else if (op == 36) { H.s = s |-| t; } \
        else if (op == 37) { H.s = s >> H.b[7:0]; } \
        else if (op == 38) { H.s = s << H.b[7:0]; } \
        else if (op == 39) { H.r = (bit<W>)(bit<1>)(s < t); } \
        else if (op == 40) { H.r = (bit<W>)(bit<1>)(s >= t); } \
        else if (op == 41) { H.s = s > t ? s : t; } \
        else if (op == 42) { H.s = -s; } \
        else if (op == 43) { H.r = (bit<W>)(bit<600>)(int<600>)s; } \
        else if (op == 44) { H.s = (int<W>)(int<600>)s + t; } \
        else if (op == 45) { H.r = (bit<W>)((bit<600>)(int<600>)s >> W); } \
        else if (op == 46) { H.r = (bit<W>)(bit<1>)((int<600>)s * (int<600>)t < 0); } \
    }

control TestIngress(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t standard) {
    bit<8> op;

    CALCULATE(8, hdr.o8, 4)
    CALCULATE(13, hdr.o13, 7)
    CALCULATE(32, hdr.o32, 16)
    CALCULATE(48, hdr.o48, 24)
    CALCULATE(64, hdr.o64, 32)
    CALCULATE(100, hdr.o100, 50)
    CALCULATE(256, hdr.o256, 128)

    action calculate_2048() {
        bit<2048> a = hdr.o2048.a;
        bit<2048> b = hdr.o2048.b;
        if (op == 0) { hdr.o2048.r = a + b; }
        else if (op == 1) { hdr.o2048.r = a - b; }
        else if (op == 2) { hdr.o2048.r = a * b; }
        else if (op == 3) { hdr.o2048.r = a & b; }
        else if (op == 4) { hdr.o2048.r = a | b; }
        else if (op == 5) { hdr.o2048.r = a ^ b; }
        else if (op == 6) { hdr.o2048.r = ~a; }
        else if (op == 11) { hdr.o2048.r = (bit<2048>)(bit<1>)(a < b); }
        else if (op == 12) { hdr.o2048.r = (bit<2048>)(bit<1>)(a >= b); }
        else if (op == 13) { hdr.o2048.r = (bit<2048>)(bit<1>)(a == b); }
        else if (op == 14) { hdr.o2048.r = a > b ? a : b; }
    }

    apply {
        standard.egress_spec = standard.ingress_port;
        op = hdr.order.op;
        if (hdr.o8.isValid()) { calculate_8(); }
        else if (hdr.o13.isValid()) { calculate_13(); }
        else if (hdr.o32.isValid()) { calculate_32(); }
        else if (hdr.o48.isValid()) { calculate_48(); }
        else if (hdr.o64.isValid()) { calculate_64(); }
        else if (hdr.o100.isValid()) { calculate_100(); }
        else if (hdr.o256.isValid()) { calculate_256(); }
        else if (hdr.o2048.isValid()) { calculate_2048(); }
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
