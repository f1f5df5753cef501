// Rule 1: who is it? The rank, the count of workers and the place of the lease
// come from this table alone; its key holds what the sender cannot choose
// freely (the port it is plugged into, its address) and what only the job knows.
#ifndef WIRESUM_MEMBERSHIP
#define WIRESUM_MEMBERSHIP

#include "headers.p4"

control Membership(
    in headers_t hdr,
    inout metadata_t meta,
    in standard_metadata_t standard_metadata,
    out bool known)
{
    @name(".membership_packets")
    direct_counter(CounterType.packets_and_bytes) membership_packets;

    @name(".member")
    action member(
        bit<8> worker, bit<64> worker_bit, bit<64> full, bit<16> slot_base, bit<16> slot_count,
        bit<16> group, bit<64> reply_key)
    {
        membership_packets.count();
        meta.worker = worker;
        meta.worker_bit = worker_bit;
        meta.full = full;
        meta.slot_base = slot_base;
        meta.slot_count = slot_count;
        meta.group = group;
        meta.reply_key = reply_key;
    }

    @name(".stranger")
    action stranger() {
        membership_packets.count();
    }

    @name(".membership")
    table membership {
        key = {
            standard_metadata.ingress_port: exact @name("ingress_port");
            hdr.ipv4.src: exact @name("ip");
            hdr.udp.src_port: exact @name("udp_port");
            hdr.wiresum.job: exact @name("job");
            hdr.wiresum.epoch: exact @name("epoch");
            hdr.wiresum.key: exact @name("key");
        }
        actions = { member; @defaultonly stranger; }
        const default_action = stranger();
        counters = membership_packets;
        size = 8192;
    }

    apply {
        known = membership.apply().hit;
    }
}

#endif
