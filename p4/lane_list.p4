// LANES is a build parameter: -DLANES=64, 256 or 2048.
// EACH_LANE(M) expands M(xxx) for every lane, xxx being the lane's number in
// three hexadecimal digits: P4 has no loop that declares fields or unrolls
// statements, and p4c's run-time loops are only right inside actions.
#ifndef WIRESUM_LANE_LIST
#define WIRESUM_LANE_LIST

#ifndef LANES
#error "LANES is not set: compile with -DLANES=64 or -DLANES=256"
#endif

// Slots of one switch, shared by its leases.
const bit<32> SLOTS = 4096;
// Jobs at a time on one switch, numbered from 1.
const bit<32> JOBS = 1024;

#define LANES_16(M, p) \
    M(p##0) M(p##1) M(p##2) M(p##3) M(p##4) M(p##5) M(p##6) M(p##7) \
    M(p##8) M(p##9) M(p##a) M(p##b) M(p##c) M(p##d) M(p##e) M(p##f)
#define LANES_64_OF(M, p) \
    LANES_16(M, p##0) LANES_16(M, p##1) LANES_16(M, p##2) LANES_16(M, p##3)
#define LANES_256_OF(M, p) \
    LANES_16(M, p##0) LANES_16(M, p##1) LANES_16(M, p##2) LANES_16(M, p##3) \
    LANES_16(M, p##4) LANES_16(M, p##5) LANES_16(M, p##6) LANES_16(M, p##7) \
    LANES_16(M, p##8) LANES_16(M, p##9) LANES_16(M, p##a) LANES_16(M, p##b) \
    LANES_16(M, p##c) LANES_16(M, p##d) LANES_16(M, p##e) LANES_16(M, p##f)

// In a list of the fields that a checksum covers.
#define LANE_SUMMED(x) hdr.lanes.l##x,

#if LANES == 64
#define EACH_LANE(M) LANES_64_OF(M, 0)
#elif LANES == 256
#define EACH_LANE(M) LANES_256_OF(M, 0)
#elif LANES == 2048
#define EACH_LANE(M) \
    LANES_256_OF(M, 0) LANES_256_OF(M, 1) LANES_256_OF(M, 2) LANES_256_OF(M, 3) \
    LANES_256_OF(M, 4) LANES_256_OF(M, 5) LANES_256_OF(M, 6) LANES_256_OF(M, 7)
#else
#error "LANES must be 64, 256 or 2048"
#endif

#endif
