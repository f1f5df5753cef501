// The switch program: sums integer chunks of gradients while they cross.
// One file per concern; this one says what happens to a frame, in order.
#include <core.p4>
#include <v1model.p4>

#include "aggregate.p4"
#include "counters.p4"
#include "deliver.p4"
#include "forward.p4"
#include "headers.p4"
#include "local.p4"
#include "parser.p4"

// What a UDP checksum covers in front of the lanes, in whole words of 16 bits, but for itself.
#define HEADERS_SUMMED \
    hdr.ipv4.src, hdr.ipv4.dst, 8w0, hdr.ipv4.protocol, hdr.udp.length, hdr.udp.src_port, \
    hdr.udp.dst_port, hdr.udp.length, hdr.wiresum.version, hdr.wiresum.kind, hdr.wiresum.op, \
    hdr.wiresum.readers, hdr.wiresum.job, hdr.wiresum.slot, hdr.wiresum.epoch, \
    hdr.wiresum.chunk, hdr.wiresum.key, hdr.wiresum.fingerprint

control VerifyHeader(inout headers_t hdr, inout metadata_t meta) {
    apply {
        verify_checksum(
            hdr.ipv4.isValid() && hdr.ipv4.header_words == 5,
            { hdr.ipv4.version, hdr.ipv4.header_words, hdr.ipv4.tos, hdr.ipv4.length,
              hdr.ipv4.identification, hdr.ipv4.flags, hdr.ipv4.fragment, hdr.ipv4.ttl,
              hdr.ipv4.protocol, hdr.ipv4.src, hdr.ipv4.dst },
            hdr.ipv4.checksum, HashAlgorithm.csum16);
        // A contribution that has a UDP checksum must fit it: nothing else would find a
        // bit that has flipped where no frame check sequence looks. The field itself is
        // summed, too, since UDP sends 0xFFFF for the checksum 0, which means "none".
        verify_checksum(
            hdr.lanes.isValid() && hdr.udp.checksum != 0,
            { EACH_LANE(LANE_SUMMED) HEADERS_SUMMED, hdr.udp.checksum },
            meta.zero, HashAlgorithm.csum16);
        verify_checksum(
            meta.bare && hdr.udp.checksum != 0, { HEADERS_SUMMED, hdr.udp.checksum },
            meta.zero, HashAlgorithm.csum16);
    }
}

control SwitchIngress(
    inout headers_t hdr,
    inout metadata_t meta,
    inout standard_metadata_t standard_metadata)
{
    Aggregate() aggregate;
    AnswerArp() answer_arp;
    AnswerPing() answer_ping;
    Forward() forward;

    bool dropped = false;
    bit<32> drop_reason = 0;
    ip_t asked = 0;
    ip_t sender = 0;
    bit<16> header_sum = 1;

    action refuse(bit<32> reason) {
        drop_reason = reason;
        dropped = true;
    }

    // Which of the two checksums it was: 0 if the header's is right.
    action sum_header() {
        hash(header_sum, HashAlgorithm.csum16, 16w0,
            { hdr.ipv4.version, hdr.ipv4.header_words, hdr.ipv4.tos, hdr.ipv4.length,
              hdr.ipv4.identification, hdr.ipv4.flags, hdr.ipv4.fragment, hdr.ipv4.ttl,
              hdr.ipv4.protocol, hdr.ipv4.checksum, hdr.ipv4.src, hdr.ipv4.dst },
            32w0x10000);
    }

    @name(".switch_address")
    action switch_address(mac_t mac) {
        meta.local = true;
        meta.switch_mac = mac;
    }

    @name(".addresses")
    table addresses {
        key = { asked: exact @name("ip"); }
        actions = { switch_address; @defaultonly NoAction; }
        const default_action = NoAction();
        size = 64;
    }

    @name(".spoofed_source")
    action spoofed_source() {
        refuse(DropReason.SPOOFED_SOURCE);
    }

    @name(".own_source")
    table own_source {
        key = { sender: exact @name("ip"); }
        actions = { spoofed_source; @defaultonly NoAction; }
        const default_action = NoAction();
        size = 64;
    }

    apply {
        if (standard_metadata.parser_error != error.NoError) {
            refuse(DropReason.TRUNCATED);
        } else if (standard_metadata.checksum_error == 1) {
            if (hdr.lanes.isValid() || meta.bare) {
                sum_header();
            }
            if (header_sum == 0) {
                refuse(DropReason.DAMAGED);
            } else {
                refuse(DropReason.BAD_CHECKSUM);
            }
        } else {
            if (hdr.arp.isValid()) {
                asked = hdr.arp.target_ip;
                sender = hdr.arp.sender_ip;
            } else if (hdr.ipv4.isValid()) {
                asked = hdr.ipv4.dst;
                sender = hdr.ipv4.src;
            }
            if (hdr.arp.isValid() || hdr.ipv4.isValid()) {
                addresses.apply();
                own_source.apply();
            }
            if (!dropped) {
                if (hdr.wiresum.isValid() && hdr.wiresum.kind != Kind.CONTRIBUTION) {
                    // Only a switch makes replies, and no switch is behind a host port.
                    refuse(DropReason.FORGED_REPLY);
                } else if (!meta.local) {
                    forward.apply(
                        hdr, meta, standard_metadata, sender, asked, drop_reason, dropped);
                } else if (hdr.wiresum.isValid()) {
                    aggregate.apply(hdr, meta, standard_metadata, drop_reason, dropped);
                } else if (hdr.arp.isValid() && hdr.arp.oper == ARP_REQUEST) {
                    answer_arp.apply(hdr, meta, standard_metadata);
                } else if (hdr.icmp.isValid() && hdr.icmp.type == ICMP_ECHO_REQUEST) {
                    answer_ping.apply(hdr, meta, standard_metadata);
                } else {
                    refuse(DropReason.LOCAL_UNSERVED);
                }
            }
        }
        if (dropped) {
            drops.count(drop_reason);
            mark_to_drop(standard_metadata);
        }
    }
}

control SwitchEgress(
    inout headers_t hdr,
    inout metadata_t meta,
    inout standard_metadata_t standard_metadata)
{
    Deliver() deliver;

    apply {
        if (meta.reply) {
            bool delivered;
            deliver.apply(hdr, meta, standard_metadata, delivered);
            if (!delivered) {
                drops.count((bit<32>)DropReason.UNDELIVERABLE);
                mark_to_drop(standard_metadata);
            }
        } else if (meta.flooded
                && standard_metadata.egress_port == standard_metadata.ingress_port) {
            // A flooded frame does not go back where it came from: pruning, not a loss.
            mark_to_drop(standard_metadata);
        }
    }
}

control UpdateHeader(inout headers_t hdr, inout metadata_t meta) {
    apply {
        update_checksum(
            hdr.ipv4.isValid() && hdr.ipv4.header_words == 5,
            { hdr.ipv4.version, hdr.ipv4.header_words, hdr.ipv4.tos, hdr.ipv4.length,
              hdr.ipv4.identification, hdr.ipv4.flags, hdr.ipv4.fragment, hdr.ipv4.ttl,
              hdr.ipv4.protocol, hdr.ipv4.src, hdr.ipv4.dst },
            hdr.ipv4.checksum, HashAlgorithm.csum16);
        // A RESULT carries a checksum if the contribution that completed it did: then
        // ports that pass many frames on as one can take it, and a bit that flips
        // behind the switch is noticed.
        update_checksum(
            meta.reply && hdr.lanes.isValid() && hdr.udp.checksum != 0,
            { EACH_LANE(LANE_SUMMED) HEADERS_SUMMED },
            hdr.udp.checksum, HashAlgorithm.csum16);
        update_checksum(
            meta.reply && !hdr.lanes.isValid() && hdr.udp.checksum != 0, { HEADERS_SUMMED },
            hdr.udp.checksum, HashAlgorithm.csum16);
    }
}

control Deparse(packet_out packet, in headers_t hdr) {
    apply {
        packet.emit(hdr.ethernet);
        packet.emit(hdr.arp);
        packet.emit(hdr.ipv4);
        packet.emit(hdr.icmp);
        packet.emit(hdr.udp);
        packet.emit(hdr.wiresum);
        packet.emit(hdr.contributors);
        packet.emit(hdr.lanes);
    }
}

@pkginfo(name="wiresum", version="0.3.0")
V1Switch(
    Parse(), VerifyHeader(), SwitchIngress(), SwitchEgress(), UpdateHeader(), Deparse()) main;
