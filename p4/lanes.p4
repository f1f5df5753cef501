// The adder. One register array holds the lanes of every slot side by side, so
// that a slot is one stretch of memory starting at meta.lane_base.
#ifndef WIRESUM_LANES
#define WIRESUM_LANES

#include "headers.p4"

enum bit<8> LaneStep {
    CLAIM = 0,
    SUM = 1,
    MAX = 2,
    READ = 3,
    NONE = 4    // adds zero, and is not the last one
}

control Lanes(inout headers_t hdr, in metadata_t meta, in LaneStep step) {
    @name(".lanes") register<bit<32>>(SLOTS * LANES) lanes;

    // A bare contribution that opens a slot: it goes on as a contribution of zeros.
#define BLANK_LANE(x) hdr.lanes.l##x = 0;
    @name(".blank_lanes")
    action blank_lanes() {
        hdr.lanes.setValid();
        EACH_LANE(BLANK_LANE)
    }

    // Steps through the slot's cells. An index computed afresh for each lane
    // would cost a metadata field and an assignment per lane and access.
    bit<32> at;
    bit<32> cell;

    // The slot's first packet: no clearing pass, the lanes are overwritten.
#define CLAIM_LANE(x) \
        lanes.write(at, hdr.lanes.l##x); \
        at = at + 1;
    @name(".claim_lanes")
    action claim_lanes() {
        EACH_LANE(CLAIM_LANE)
    }

    // The packet leaves with the running sum: if it is the last one, that is the RESULT.
#define SUM_LANE(x) \
        lanes.read(cell, at); \
        hdr.lanes.l##x = hdr.lanes.l##x + cell; \
        lanes.write(at, hdr.lanes.l##x); \
        at = at + 1;
    @name(".sum_lanes")
    action sum_lanes() {
        EACH_LANE(SUM_LANE)
    }

#define MAX_LANE(x) \
        lanes.read(cell, at); \
        if (cell > hdr.lanes.l##x) { hdr.lanes.l##x = cell; } \
        lanes.write(at, hdr.lanes.l##x); \
        at = at + 1;
    @name(".max_lanes")
    action max_lanes() {
        EACH_LANE(MAX_LANE)
    }

#define READ_LANE(x) \
        lanes.read(hdr.lanes.l##x, at); \
        at = at + 1;
    @name(".read_lanes")
    action read_lanes() {
        hdr.lanes.setValid();
        EACH_LANE(READ_LANE)
    }

    apply {
        at = meta.lane_base;
        if (step == LaneStep.CLAIM) {
            if (meta.bare) {
                blank_lanes();
            }
            claim_lanes();
        } else if (step == LaneStep.SUM) {
            sum_lanes();
        } else if (step == LaneStep.MAX) {
            max_lanes();
        } else if (step == LaneStep.READ) {
            read_lanes();
        }
    }
}

#endif
