// What the switch answers in its own name: ARP and ping.
#ifndef WIRESUM_LOCAL
#define WIRESUM_LOCAL

#include "headers.p4"

const bit<16> ARP_REQUEST = 1;
const bit<16> ARP_REPLY = 2;
const bit<8> ICMP_ECHO_REPLY = 0;
const bit<8> ICMP_ECHO_REQUEST = 8;

control AnswerArp(
    inout headers_t hdr,
    inout metadata_t meta,
    inout standard_metadata_t standard_metadata)
{
    apply {
        ip_t asked = hdr.arp.target_ip;
        hdr.arp.oper = ARP_REPLY;
        hdr.arp.target_mac = hdr.arp.sender_mac;
        hdr.arp.target_ip = hdr.arp.sender_ip;
        hdr.arp.sender_mac = meta.switch_mac;
        hdr.arp.sender_ip = asked;
        hdr.ethernet.dst = hdr.ethernet.src;
        hdr.ethernet.src = meta.switch_mac;
        standard_metadata.egress_spec = standard_metadata.ingress_port;
    }
}

control AnswerPing(
    inout headers_t hdr,
    inout metadata_t meta,
    inout standard_metadata_t standard_metadata)
{
    apply {
        hdr.icmp.type = ICMP_ECHO_REPLY;
        // RFC 1624: from type 8 to type 0 the ones' complement sum falls by
        // 0x0800, so its complement rises by as much, with the carry brought
        // around.
        bit<17> sum = (bit<17>)hdr.icmp.checksum + 0x0800;
        hdr.icmp.checksum = sum[15:0] + (bit<16>)sum[16:16];
        ip_t asked = hdr.ipv4.dst;
        hdr.ipv4.dst = hdr.ipv4.src;
        hdr.ipv4.src = asked;
        hdr.ipv4.ttl = 64;
        hdr.ethernet.dst = hdr.ethernet.src;
        hdr.ethernet.src = meta.switch_mac;
        standard_metadata.egress_spec = standard_metadata.ingress_port;
    }
}

#endif
