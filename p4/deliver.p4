// Egress: a reply gets its worker's address, and a RESULT loses its lanes if that
// worker does not read them. Each copy of a multicast RESULT finds its own worker
// through the replica's instance, which is worker + 1, so workers need not share a
// UDP port.
#ifndef WIRESUM_DELIVER
#define WIRESUM_DELIVER

#include "counters.p4"
#include "headers.p4"

control Deliver(
    inout headers_t hdr,
    inout metadata_t meta,
    inout standard_metadata_t standard_metadata,
    out bool delivered)
{
    @name(".deliver_to")
    action deliver_to(mac_t mac, ip_t ip, bit<16> udp_port) {
        hdr.ethernet.dst = mac;
        hdr.ipv4.dst = ip;
        hdr.udp.dst_port = udp_port;
    }

    @name(".deliver")
    table deliver {
        key = {
            hdr.wiresum.job: exact @name("job");
            meta.worker: exact @name("worker");
        }
        actions = { deliver_to; @defaultonly NoAction; }
        const default_action = NoAction();
        size = 8192;
    }

    action strip() {
        hdr.lanes.setInvalid();
        hdr.udp.length = BARE_UDP_BYTES;
        hdr.ipv4.length = IPV4_BYTES + BARE_UDP_BYTES;
    }

    apply {
        if (standard_metadata.egress_rid != 0) {
            meta.worker = (bit<8>)(standard_metadata.egress_rid - 1);
        }
        delivered = deliver.apply().hit;
        bool named = meta.worker == (bit<8>)hdr.wiresum.readers[5:0];
        if (hdr.lanes.isValid()
                && ((hdr.wiresum.readers[7:6] == Readers.ONLY && !named)
                    || (hdr.wiresum.readers[7:6] == Readers.ALL_BUT && named))) {
            strip();
        }
    }
}

#endif
