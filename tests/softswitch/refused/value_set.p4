// Outside of the subset: parser value sets.
#include <core.p4>
#include <v1model.p4>

header byte_t { bit<8> v; }

struct headers_t { byte_t first;  }
struct meta_t { @field_list(1) bit<8> m; }

parser TestParser(packet_in packet, out headers_t hdr, inout meta_t meta,
                  inout standard_metadata_t standard) {
    value_set<bit<8>>(4) known;
    state start {
        packet.extract(hdr.first);
        transition select(hdr.first.v) { known: more; default: accept; }
    }
    state more { transition accept;
    }
}
control Verify(inout headers_t hdr, inout meta_t meta) { apply {} }
control TestIngress(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t standard) {

    apply {
        standard.egress_spec = 1;
    }
}
control TestEgress(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t standard) {
    apply {  }
}
control Update(inout headers_t hdr, inout meta_t meta) { apply {} }
control TestDeparser(packet_out packet, in headers_t hdr) { apply { packet.emit(hdr); } }
V1Switch(TestParser(), Verify(), TestIngress(), TestEgress(), Update(), TestDeparser()) main;
