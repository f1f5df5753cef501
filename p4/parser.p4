// From bytes to headers. Whatever is not understood stays payload and may be
// forwarded; only a frame that ends in the middle of a header is an error.
#ifndef WIRESUM_PARSER
#define WIRESUM_PARSER

#include "headers.p4"

parser Parse(
    packet_in packet,
    out headers_t hdr,
    inout metadata_t meta,
    inout standard_metadata_t standard_metadata)
{
    state start {
        packet.extract(hdr.ethernet);
        transition select(hdr.ethernet.type) {
            ETHERTYPE_ARP: parse_arp;
            ETHERTYPE_IPV4: parse_ipv4;
            default: accept;
        }
    }

    state parse_arp {
        packet.extract(hdr.arp);
        transition accept;
    }

    // A fragment, or a header with options, is never wiresum's and goes on as
    // an ordinary frame.
    state parse_ipv4 {
        packet.extract(hdr.ipv4);
        transition select(
            hdr.ipv4.version, hdr.ipv4.header_words, hdr.ipv4.flags & 1, hdr.ipv4.fragment,
            hdr.ipv4.protocol)
        {
            (4, 5, 0, 0, PROTOCOL_ICMP): parse_icmp;
            (4, 5, 0, 0, PROTOCOL_UDP): parse_udp;
            default: accept;
        }
    }

    state parse_icmp {
        packet.extract(hdr.icmp);
        transition accept;
    }

    state parse_udp {
        packet.extract(hdr.udp);
        transition select(hdr.udp.dst_port) {
            UDP_PORT: parse_wiresum;
            default: accept;
        }
    }

    // Only what has a CONTRIBUTION's length is given lanes, or is bare, so that
    // every other length reaches the rule that drops and counts it.
    state parse_wiresum {
        packet.extract(hdr.wiresum);
        transition select(hdr.wiresum.kind, hdr.udp.length) {
            (Kind.CONTRIBUTION, CONTRIBUTION_UDP_BYTES): parse_lanes;
            (Kind.CONTRIBUTION, BARE_UDP_BYTES): parse_bare;
            default: accept;
        }
    }

    state parse_lanes {
        packet.extract(hdr.lanes);
        transition accept;
    }

    state parse_bare {
        meta.bare = true;
        transition accept;
    }
}

#endif
