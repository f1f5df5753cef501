// The error lines of the worker engine. Codes E...; docs/operations.md has the cures.
#pragma once

#include "error_line.hpp"

namespace wiresum::lines {

// ---- arguments

inline constexpr Line<"E001", "rank {rank} is not one of {workers} workers"> kNoSuchRank;
inline constexpr Line<"E002", "{workers} workers: a switch adds up at most {most}"> kTooManyWorkers;
inline constexpr Line<"E003", "epoch 0 is never used"> kEpochZero;
inline constexpr Line<"E004", "{slots} slots: a lease has {least} to 65536 of them"> kBadSlots;
inline constexpr Line<"E005", "{lanes} lanes: a chunk has 1 to 16000 of them"> kBadLanes;
inline constexpr Line<"E006", "field {bits}: fields have 32, 16 or 8 bits"> kBadField;
inline constexpr Line<"E007", "a time limit is not above 0 s"> kBadLimit;
inline constexpr Line<"E008", "rto_min_s exceeds rto_max_s"> kLimitsCrossed;
inline constexpr Line<"E009", "first_position exceeds 2^62"> kPositionTooHigh;
inline constexpr Line<"E010", "switch address {ip}:{port} is not an IPv4 address and a port">
    kBadAddress;
inline constexpr Line<"E011", "file descriptor {fd} is not a bound IPv4 UDP socket"> kNoUdpSocket;
inline constexpr Line<"E012", "a piece at a null address: give the memory that this rank uses">
    kNullAddress;
inline constexpr Line<"E013", "a piece of more than 2^48 elements, or bytes of a copy: divide it">
    kTooManyElements;
inline constexpr Line<"E014", "ticket {ticket} is not above those before it"> kTicketTooLow;
inline constexpr Line<"E015", "ticket {ticket} is unknown or was taken already"> kTicketGone;
inline constexpr Line<"E016",
                      "fail with kind {kind}: it must be the name of an EngineError in "
                      "wiresum.host_agent.errors">
    kBadKind;
inline constexpr Line<"E017", "stream {stream}: it must be exponent, data or copy"> kBadStream;
inline constexpr Line<"E018",
                      "dtype {dtype}: float32, float16, bfloat16, int32 and max_uint32 can be "
                      "reduced">
    kBadDtype;
inline constexpr Line<"E052", "dtype {dtype}: a copy (of rank {source}) is of bytes"> kCopyOfBytes;
inline constexpr Line<"E053",
                      "source {source}, readers {readers}, reader {reader}: the source is -1 "
                      "or one of {workers} ranks; readers are 0 (all; then the reader is "
                      "-1), 1 (only the reader) or 2 (all but the reader)">
    kBadReaders;
inline constexpr Line<"E054", "rank {rank} of {workers}: say which rank this is"> kBadRank;
inline constexpr Line<"E019", "instruction set {name} is unknown or not in this machine">
    kNoInstructionSet;

// ---- the codecs

inline constexpr Line<"E020", "field {bits} leaves no budget for {workers} workers{advice}">
    kNoBudget;
inline constexpr Line<"E021", "the array's items have {bytes} bytes, the dtype's {wanted}">
    kOtherItems;
inline constexpr Line<"E051", "only floats can be averaged"> kNoAverage;
inline constexpr Line<"E022", "blocks of {elements} elements: they have 1 or {others}"> kBadBlock;
inline constexpr Line<"E023", "blocks of one element have fields of 32 bits, not {bits}">
    kBadFieldOfOne;
inline constexpr Line<"E024", "{codes} exponent codes for {blocks} blocks"> kOtherCodes;
inline constexpr Line<"E025", "{lanes} lanes are fewer than the codes call for"> kTooFewLanes;

// ---- the engine's life

inline constexpr Line<"E026", "no eventfd: {why}"> kNoEventfd;
inline constexpr Line<"E027", "the socket cannot be duplicated: {why}"> kNoDuplicate;
inline constexpr Line<"E028", "the engine belongs to the process that made it, not to its forks">
    kForked;
inline constexpr Line<"E029", "the engine takes no more work: {why}"> kNoMoreWork;
inline constexpr Line<"E030", "the engine was closed by its owner"> kClosed;

// ---- collectives that fail

inline constexpr Line<"E031",
                      "{collective} of rank {rank} disagrees with {others} at {chunk} on "
                      "{switch}: fingerprint {ours} here, {theirs} there; all ranks must issue the "
                      "same collectives in the same order">
    kMismatch;
inline constexpr Line<"E032",
                      "{collective} made no progress within the timeout of {seconds}: {missing} at "
                      "{chunk} on {switch}">
    kNoProgress;
inline constexpr Line<"E033",
                      "{switch} has not answered anything for {seconds}{error}; is it running, and "
                      "does it know this worker's address?">
    kSilent;
inline constexpr Line<"E034", "{switch} has hung up on this worker: is it running?"> kHungUp;
inline constexpr Line<"E035", "{switch} has hung up, and then: {why}"> kHungUpAndThen;

// ---- handing over to another carrier

inline constexpr Line<"E036", "the engine is not suspended: it has nothing to hand over">
    kNotSuspended;
inline constexpr Line<"E037",
                      "{stream} chunks {first} to {end} are not kept here: those from {oldest} to "
                      "{next} are">
    kNotKept;
inline constexpr Line<"E038",
                      "chunks are left without a result: exponent {exponent}, data {data} and "
                      "copy {copy} are the oldest, not {exponent_end}, {data_end} and {copy_end}">
    kChunksLeft;

// ---- shared memory with a switch on the same host

inline constexpr Line<"E039", "'{path}' cannot be the path of a socket"> kBadPath;
inline constexpr Line<"E040", "no socket: {why}"> kNoSocket;
inline constexpr Line<"E041", "{switch} cannot be reached: {why}"> kNotReached;
inline constexpr Line<"E042", "{switch} has hung up: it has no room for another worker"> kNoRoom;
inline constexpr Line<"E043",
                      "{switch} speaks another version: install the same wiresum on both sides">
    kOtherVersion;
inline constexpr Line<"E044",
                      "{switch} has been restarted and does not give this worker its address back: "
                      "restart the job">
    kAddressLost;
inline constexpr Line<"E045", "{switch} has no memory for this worker"> kNoMemory;
inline constexpr Line<"E046", "{switch} refuses rings of this size"> kRingsRefused;
inline constexpr Line<"E047", "no shared memory from the switch: {why}"> kNothingShared;
inline constexpr Line<"E048",
                      "{switch}'s rings take {bytes} bytes, a chunk of this lease has {needed}">
    kRingsTooShort;
inline constexpr Line<"E049", "{switch} has handed out memory that cannot be trusted"> kNotTrusted;
inline constexpr Line<"E050", "no shared memory: {why}"> kNotMapped;

}  // namespace wiresum::lines
