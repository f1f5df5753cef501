// Ordinary frames: to the port of a known station, else to all other ports.
#ifndef WIRESUM_FORWARD
#define WIRESUM_FORWARD

#include "headers.p4"

control Forward(
    inout headers_t hdr,
    inout metadata_t meta,
    inout standard_metadata_t standard_metadata)
{
    @name(".to_port")
    action to_port(bit<9> port) {
        standard_metadata.egress_spec = port;
    }

    @name(".flood")
    action flood() {
        standard_metadata.mcast_grp = FLOOD_GROUP;
        meta.flooded = true;
    }

    @name(".l2")
    table l2 {
        key = { hdr.ethernet.dst: exact @name("mac"); }
        actions = { to_port; flood; }
        default_action = flood();
        size = 4096;
    }

    apply {
        l2.apply();
    }
}

#endif
