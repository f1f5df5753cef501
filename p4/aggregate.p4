// Rules 2 to 5: what a member's CONTRIBUTION does to its slot. All of it happens
// in one pass of ingress, which both targets run one packet at a time.
#ifndef WIRESUM_AGGREGATE
#define WIRESUM_AGGREGATE

#include "counters.p4"
#include "headers.p4"
#include "lanes.p4"
#include "membership.p4"

// What rules 3 to 5 decided.
enum bit<8> Verdict {
    NONE = 0,
    STALE = 1,
    CLAIM = 2,
    ADD = 3,
    RESEND = 4,
    WAIT = 5,
    MISMATCH = 6
}

control Aggregate(
    inout headers_t hdr,
    inout metadata_t meta,
    inout standard_metadata_t standard_metadata,
    inout bit<32> drop_reason,
    inout bool dropped)
{
    // A slot's state beside its lanes. Epoch 0 is never used: the slot is new.
    @name(".slot_epoch") register<bit<32>>(SLOTS) slot_epoch;
    @name(".slot_chunk") register<bit<32>>(SLOTS) slot_chunk;
    @name(".slot_fingerprint") register<bit<32>>(SLOTS) slot_fingerprint;
    @name(".slot_bitmap") register<bit<64>>(SLOTS) slot_bitmap;
    @name(".events") counter(JOBS * EVENTS, CounterType.packets) events;

    Lanes() lanes;
    Membership() membership;

    bit<32> epoch;
    bit<32> chunk;
    bit<32> fingerprint;
    bit<64> bitmap;
    Verdict verdict;
    LaneStep step;
    bool readable;

    action refuse(bit<32> reason) {
        drop_reason = reason;
        dropped = true;
    }

    action note(bit<32> event) {
        events.count((bit<32>)hdr.wiresum.job * EVENTS + event);
    }

    // A reply leaves in the switch's name with the slot's own epoch and chunk,
    // never the request's: a worker cannot be told another chunk's sum. Its key is
    // another one than the contribution's: who sees a reply cannot contribute.
    action reply(bit<8> kind) {
        ip_t asked = hdr.ipv4.dst;
        hdr.wiresum.kind = kind;
        hdr.wiresum.key = meta.reply_key;
        hdr.wiresum.epoch = epoch;
        hdr.wiresum.chunk = chunk;
        hdr.wiresum.fingerprint = fingerprint;
        hdr.ethernet.src = meta.switch_mac;
        hdr.ipv4.dst = hdr.ipv4.src;
        hdr.ipv4.src = asked;
        hdr.ipv4.ttl = 64;
        hdr.udp.dst_port = hdr.udp.src_port;
        hdr.udp.src_port = UDP_PORT;
        meta.reply = true;
    }

    action to_sender() {
        standard_metadata.egress_spec = standard_metadata.ingress_port;
    }

    // A RESULT has lanes, also where a bare packet has asked for it, until egress takes
    // them from the copies of ranks that do not read.
    action with_lanes() {
        hdr.udp.length = CONTRIBUTION_UDP_BYTES;
        hdr.ipv4.length = IPV4_BYTES + CONTRIBUTION_UDP_BYTES;
    }

    action without_lanes() {
        hdr.lanes.setInvalid();
        hdr.contributors.setValid();
        hdr.contributors.bitmap = bitmap;
        hdr.udp.length = STATUS_UDP_BYTES;
        hdr.udp.checksum = 0;
        hdr.ipv4.length = IPV4_BYTES + STATUS_UDP_BYTES;
    }

    // Serial numbers (RFC 1982): ahead by less than half of the circle is newer.
    action compare() {
        bit<32> epoch_ahead = hdr.wiresum.epoch - epoch;
        bit<32> chunk_ahead = hdr.wiresum.chunk - chunk;
        bool newer = epoch == 0 || (epoch_ahead != 0 && epoch_ahead[31:31] == 0)
            || (epoch_ahead == 0 && chunk_ahead != 0 && chunk_ahead[31:31] == 0);
        if (newer) {
            verdict = Verdict.CLAIM;
        } else if (epoch_ahead != 0 || chunk_ahead != 0) {
            verdict = Verdict.STALE;
        } else if ((bitmap & meta.worker_bit) != 0) {
            verdict = bitmap == meta.full ? Verdict.RESEND : Verdict.WAIT;
        } else if (fingerprint != hdr.wiresum.fingerprint) {
            verdict = Verdict.MISMATCH;
        } else {
            verdict = Verdict.ADD;
        }
    }

    action load() {
        slot_epoch.read(epoch, meta.slot);
        slot_chunk.read(chunk, meta.slot);
        slot_fingerprint.read(fingerprint, meta.slot);
        slot_bitmap.read(bitmap, meta.slot);
    }

    action store_claim() {
        epoch = hdr.wiresum.epoch;
        chunk = hdr.wiresum.chunk;
        fingerprint = hdr.wiresum.fingerprint;
        bitmap = 0;
        slot_epoch.write(meta.slot, epoch);
        slot_chunk.write(meta.slot, chunk);
        slot_fingerprint.write(meta.slot, fingerprint);
    }

    action join() {
        bitmap = bitmap | meta.worker_bit;
        slot_bitmap.write(meta.slot, bitmap);
    }

    // Every rank must say the same (its fingerprint covers it), so the slot need not.
    action check_readers() {
        bit<6> reader = hdr.wiresum.readers[5:0];
        if (hdr.wiresum.readers[7:6] == Readers.ALL) {
            readable = reader == 0;
        } else {
            readable = hdr.wiresum.readers[7:6] <= Readers.ALL_BUT
                && ((meta.full >> reader) & 1) == 1;
        }
    }

    action locate() {
        meta.slot = (bit<32>)meta.slot_base + (bit<32>)hdr.wiresum.slot;
        meta.lane_base = meta.slot * LANES;
    }

    apply {
        bool known = false;
        if (hdr.wiresum.version != VERSION) {
            refuse(DropReason.WRONG_VERSION);
        } else if (hdr.wiresum.op != Op.SUM && hdr.wiresum.op != Op.MAX) {
            refuse(DropReason.WRONG_OP);
        } else if (!(hdr.lanes.isValid() || meta.bare)
                || hdr.ipv4.length != IPV4_BYTES + hdr.udp.length
                || standard_metadata.packet_length
                    != (bit<32>)(ETHERNET_BYTES + IPV4_BYTES + hdr.udp.length)) {
            refuse(DropReason.WRONG_LENGTH);
        } else {
            membership.apply(hdr, meta, standard_metadata, known);
            if (!known) {
                refuse(DropReason.STRANGER);
            } else if (hdr.wiresum.slot >= meta.slot_count) {
                note(Event.OUT_OF_LEASE);
                refuse(DropReason.OUT_OF_LEASE);
            } else {
                check_readers();
                if (!readable) {
                    refuse(DropReason.WRONG_READERS);
                }
            }
            if (!dropped) {
                @atomic {
                    locate();
                    load();
                    compare();
                    if (verdict == Verdict.STALE) {
                        note(Event.STALE);
                        refuse(DropReason.STALE);
                    } else if (verdict == Verdict.WAIT) {
                        note(Event.WAITED);
                        reply(Kind.WAIT);
                        without_lanes();
                        to_sender();
                    } else if (verdict == Verdict.MISMATCH) {
                        note(Event.MISMATCHED);
                        reply(Kind.MISMATCH);
                        without_lanes();
                        // To all: who opened the slot would else wait for a sum that
                        // can never come.
                        standard_metadata.mcast_grp = meta.group;
                    } else {
                        if (verdict == Verdict.RESEND) {
                            note(Event.RESENT);
                            step = LaneStep.READ;
                        } else if (verdict == Verdict.CLAIM) {
                            note(Event.CLAIMED);
                            store_claim();
                            step = LaneStep.CLAIM;
                        } else {
                            note(Event.ADDED);
                            step = hdr.wiresum.op == Op.MAX ? LaneStep.MAX : LaneStep.SUM;
                            if (meta.bare) {
                                bool last = (bitmap | meta.worker_bit) == meta.full;
                                step = last ? LaneStep.READ : LaneStep.NONE;
                            }
                        }
                        lanes.apply(hdr, meta, step);
                        join();
                        if (bitmap != meta.full) {
                            // Kept in the slot; the packet itself has done its work.
                            mark_to_drop(standard_metadata);
                        } else {
                            reply(Kind.RESULT);
                            with_lanes();
                            if (verdict == Verdict.RESEND) {
                                to_sender();
                            } else {
                                note(Event.COMPLETED);
                                standard_metadata.mcast_grp = meta.group;
                            }
                        }
                    }
                }
            }
        }
    }
}

#endif
