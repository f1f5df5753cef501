// Outside of the subset: clone.
#include <core.p4>
#include <v1model.p4>

header byte_t { bit<8> v; }

struct headers_t { byte_t first;  }
struct meta_t { @field_list(1) bit<8> m; }

parser TestParser(packet_in packet, out headers_t hdr, inout meta_t meta,
                  inout standard_metadata_t standard) {

    state start {
        packet.extract(hdr.first);
        transition accept;
    }
}
control Verify(inout headers_t hdr, inout meta_t meta) { apply {} }
control TestIngress(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t standard) {

    apply {
        clone(CloneType.I2E, 32w5);
    }
}
control TestEgress(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t standard) {
    apply {  }
}
control Update(inout headers_t hdr, inout meta_t meta) { apply {} }
control TestDeparser(packet_out packet, in headers_t hdr) { apply { packet.emit(hdr); } }
V1Switch(TestParser(), Verify(), TestIngress(), TestEgress(), Update(), TestDeparser()) main;
