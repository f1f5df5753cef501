// Egress: a reply gets its worker's address. Each copy of a multicast RESULT
// finds its own through the replica's instance, which is worker + 1, so workers
// need not share a UDP port.
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

    apply {
        if (standard_metadata.egress_rid != 0) {
            meta.worker = (bit<8>)(standard_metadata.egress_rid - 1);
        }
        delivered = deliver.apply().hit;
    }
}

#endif
