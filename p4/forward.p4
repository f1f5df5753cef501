// Ordinary frames: to the port of a known address, else to all other ports. What
// could make a host take somebody else for the switch, or for another host, goes
// nowhere: the hosts' own stacks believe any source address and any ARP.
#ifndef WIRESUM_FORWARD
#define WIRESUM_FORWARD

#include "counters.p4"
#include "headers.p4"

control Forward(
    inout headers_t hdr,
    inout metadata_t meta,
    inout standard_metadata_t standard_metadata,
    in ip_t sender,
    in ip_t asked,
    inout bit<32> drop_reason,
    inout bool dropped)
{
    action refuse(bit<32> reason) {
        drop_reason = reason;
        dropped = true;
    }

    @name(".behind")
    action behind(bit<9> port) {
        if (standard_metadata.ingress_port != port) {
            drop_reason = DropReason.SPOOFED_SOURCE;
            dropped = true;
        }
    }

    // The one port that a host's address may come from. A host that is not listed
    // may be anywhere.
    @name(".hosts")
    table hosts {
        key = { sender: exact @name("ip"); }
        actions = { behind; @defaultonly NoAction; }
        const default_action = NoAction();
        // Every address that the operator has listed, and every worker's.
        size = 16384;
    }

    @name(".to_port")
    action to_port(bit<9> port) {
        standard_metadata.egress_spec = port;
    }

    // Where a host's address is. What comes before l2 can be known for certain:
    // an address is where the operator says, a MAC where somebody says that it is.
    @name(".routes")
    table routes {
        key = { asked: exact @name("ip"); }
        actions = { to_port; @defaultonly NoAction; }
        const default_action = NoAction();
        size = 16384;
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
        if (hdr.ethernet.type == ETHERTYPE_VLAN || hdr.ethernet.type == ETHERTYPE_PROVIDER_VLAN) {
            // Linux takes VLAN 0 for no VLAN at all: what is behind the tag would
            // reach a host's stack without having been looked at here.
            refuse(DropReason.TAGGED);
        } else if ((hdr.ethernet.dst & LINK_LOCAL_MASK) == LINK_LOCAL_MACS) {
            refuse(DropReason.LINK_LOCAL);
        } else {
            bool routed = false;
            if (hdr.arp.isValid() || hdr.ipv4.isValid()) {
                hosts.apply();
                if (!dropped && (hdr.ethernet.dst & GROUP_BIT) == 0) {
                    routed = routes.apply().hit;
                }
            }
            if (!dropped) {
                if (!routed) {
                    l2.apply();
                }
                if (!meta.flooded
                        && standard_metadata.egress_spec == standard_metadata.ingress_port) {
                    refuse(DropReason.SAME_PORT);
                }
            }
        }
    }
}

#endif
