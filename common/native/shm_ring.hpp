// What a worker and a switch on the same host share: two rings of datagrams in one piece of memory,
// and the messages by which they agree on it. Used by the switch's shm ports and by the worker's
// engine. Neither side believes what the other one writes.
//
// A worker connects to the port's Unix socket (SOCK_SEQPACKET) and sends Hello; the switch answers
// with Welcome and, if that says so, two descriptors: the memory (sealed: its size is fixed) and an
// eventfd that wakes the switch. A byte through the socket wakes the worker: a descriptor's flags
// belong to all who hold it, and through an eventfd of its own a worker could make the switch wait.
// The switch never reads the eventfd, for the same reason. A side that closes the socket has left.
//
// The memory: Control, then the records of the ring towards the switch, then those towards the
// worker. Each ring has one writer and one reader. Indices count up for ever and wrap at 2^32.
//
// No wake-up is lost: a side that is about to sleep says so, and looks once more; a side that has
// published looks whether the other one sleeps. A full fence lies between the two steps on both
// sides.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

namespace wiresum::shm {

inline constexpr std::uint32_t kMagic = 0x77737232;  // "wsr2": changes with anything in this file
inline constexpr std::size_t kLine = 64;

inline constexpr std::size_t kPrefetchBytes = 1152;  // a chunk of 256 lanes

// What may be asked for. A datagram of 2048 lanes fits, and so does a jumbo frame's.
inline constexpr std::uint32_t kMaxPayload = 9216;
inline constexpr std::uint32_t kMinRecords = 16;
inline constexpr std::uint32_t kMaxRecords = 8192;
inline constexpr std::size_t kMaxRingBytes = std::size_t{8} << 20;

struct Hello {
  std::uint32_t magic = kMagic;
  std::uint32_t payload_bytes = 0;  // of the longest datagram
  std::uint32_t records = 0;        // of each ring; the switch makes it a power of two
  // The address that this worker has had, and the ticket that came with it last; 0: it wants a new
  // address.
  std::uint32_t ip = 0;
  std::uint32_t udp_port = 0;
  std::uint32_t unused = 0;
  std::uint64_t ticket = 0;
};
static_assert(sizeof(Hello) == 32);

enum class Answer : std::uint32_t {
  kWelcome = 0,
  kOtherVersion = 1,
  kBadRequest = 2,
  kNoMemory = 3,
  kOtherAddress = 4,  // the requested address is not available
};

struct Welcome {
  std::uint32_t magic = kMagic;
  Answer answer = Answer::kWelcome;
  std::uint32_t payload_bytes = 0;
  std::uint32_t records = 0;
  // The worker's address from now on, and the one that its datagrams are addressed to (host order).
  std::uint32_t ip = 0;
  std::uint32_t udp_port = 0;
  std::uint32_t switch_ip = 0;
  std::uint32_t unused = 0;
  // For another Hello, if this connection ends. Random; each connection gets a new one, and only
  // the last one of an address is good.
  std::uint64_t ticket = 0;
};
static_assert(sizeof(Welcome) == 40);

enum Descriptor { kMemory, kWakeSwitch, kDescriptors };

using Word = std::atomic<std::uint32_t>;
static_assert(Word::is_always_lock_free && sizeof(Word) == 4);

// What a sleeper waits for; kAwake: it does not sleep.
enum Sleep : std::uint32_t { kAwake = 0, kForRecords = 1, kForRecordsOrRoom = 2 };

struct Indices {
  alignas(kLine) Word head;  // written by the reader: the next record that it will read
  alignas(kLine) Word tail;  // written by the writer: the next record that it will write
};

struct Control {
  Indices to_switch;
  Indices to_worker;
  alignas(kLine) Word switch_sleeps;
  alignas(kLine) Word worker_sleeps;
};
static_assert(sizeof(Control) == 6 * kLine);

// A record: its payload's length, nothing, the payload. The lanes begin with a cache line: they
// lie behind a 28-byte header.
inline constexpr std::size_t kPayloadAt = 36;

constexpr std::size_t record_bytes(std::uint32_t payload_bytes) {
  return (kPayloadAt + payload_bytes + kLine - 1) / kLine * kLine;
}
constexpr std::size_t ring_bytes(std::uint32_t payload_bytes, std::uint32_t records) {
  return record_bytes(payload_bytes) * records;
}
constexpr std::size_t memory_bytes(std::uint32_t payload_bytes, std::uint32_t records) {
  return sizeof(Control) + 2 * ring_bytes(payload_bytes, records);
}
// Whether two sides can agree on rings of this kind.
constexpr bool valid(std::uint32_t payload_bytes, std::uint32_t records) {
  return payload_bytes > 0 && payload_bytes <= kMaxPayload && records >= kMinRecords &&
         records <= kMaxRecords && std::has_single_bit(records) &&
         ring_bytes(payload_bytes, records) <= kMaxRingBytes;
}

// One record as its reader finds it. What lies there may change at any time.
struct View {
  const std::uint8_t* payload = nullptr;
  std::uint32_t bytes = 0;  // within the record; 0 as well where the writer has written nonsense
  bool sound = true;
};

// One ring as one of the two sees it: its own index lies in its own memory, the other side's is
// checked. Reader and Writer share it.
class Ring {
 public:
  Ring() = default;
  Ring(Indices* indices, std::uint8_t* records, std::uint32_t payload_bytes, std::uint32_t count)
      : indices_(indices),
        records_(records),
        stride_(record_bytes(payload_bytes)),
        payload_bytes_(payload_bytes),
        count_(count) {}

 protected:
  std::uint8_t* record(std::uint32_t index) const {
    return records_ + stride_ * (index & (count_ - 1));
  }

  Indices* indices_ = nullptr;
  std::uint8_t* records_ = nullptr;
  std::size_t stride_ = 0;
  std::uint32_t payload_bytes_ = 0;
  std::uint32_t count_ = 0;
  std::uint32_t own_ = 0;    // head of a reader, tail of a writer
  std::uint32_t other_ = 0;  // the other side's, as last seen; believed only if it makes sense
};

class Reader : public Ring {
 public:
  using Ring::Ring;

  // How many records can be read. Looks at the writer's index only if it knows of fewer than
  // `enough`. An index that no honest writer makes counts as none; broken() then says so.
  std::uint32_t available(std::uint32_t enough = 1) {
    if (other_ - own_ < enough) {
      const std::uint32_t tail = indices_->tail.load(std::memory_order_acquire);
      if (tail - own_ > count_) {
        broken_ = true;
      } else {
        other_ = tail;
      }
    }
    return other_ - own_;
  }
  bool broken() const { return broken_; }

  // The record `ahead` of the next one, of those available.
  View at(std::uint32_t ahead) const {
    const std::uint8_t* record = this->record(own_ + ahead);
    // Read once: it may change at once.
    const std::uint32_t bytes =
        __atomic_load_n(reinterpret_cast<const std::uint32_t*>(record), __ATOMIC_RELAXED);
    if (bytes > payload_bytes_) return {record + kPayloadAt, 0, false};
    return {record + kPayloadAt, bytes, true};
  }
  void prefetch(std::uint32_t ahead) const {
    const std::uint8_t* record = this->record(own_ + ahead);
    __builtin_prefetch(record);
    __builtin_prefetch(record + kLine);
  }

  // Gives the first records back to the writer.
  void take(std::uint32_t records) {
    own_ += records;
    indices_->head.store(own_, std::memory_order_release);
  }

 private:
  bool broken_ = false;
};

class Writer : public Ring {
 public:
  using Ring::Ring;

  std::uint32_t payload_bytes() const { return payload_bytes_; }
  std::uint32_t records() const { return count_; }

  // Whether another record fits.
  bool has_room() {
    if (own_ - other_ == count_) {
      const std::uint32_t head = indices_->head.load(std::memory_order_acquire);
      // Between the last index and what was written; no honest reader writes another one.
      if (head - other_ > count_) broken_ = true;
      if (broken_ || head == other_) return false;
      other_ = head;
    }
    return true;
  }
  // Where the next record's payload goes, or nullptr: the ring is full. The reader does not see the
  // record before publish().
  std::uint8_t* room() { return has_room() ? record(own_) + kPayloadAt : nullptr; }
  bool broken() const { return broken_; }
  // Makes the record in room() the next one.
  void push(std::uint32_t bytes) {
    __atomic_store_n(reinterpret_cast<std::uint32_t*>(record(own_)), bytes, __ATOMIC_RELAXED);
    ++own_;
    // The next record lies in the reader's cache: fetch it while something else is done.
    const std::uint8_t* next = record(own_);
    const std::size_t much = std::min<std::size_t>(kPayloadAt + bytes, kPrefetchBytes);
    for (std::size_t at = 0; at < much; at += kLine) __builtin_prefetch(next + at, 1);
  }
  // Shows the reader what was pushed. False: nothing was.
  bool publish() {
    if (published_ == own_) return false;
    published_ = own_;
    indices_->tail.store(own_, std::memory_order_release);
    return true;
  }

 private:
  std::uint32_t published_ = 0;
  bool broken_ = false;
};

// Between what is said and what is looked at: see the top.
inline void full_fence() { std::atomic_thread_fence(std::memory_order_seq_cst); }

// After publish() (and a full fence): whether this side must wake the other one.
inline bool wake_needed(Word& sleeps, std::uint32_t least) {
  const std::uint32_t seen = sleeps.load(std::memory_order_relaxed);
  return seen >= least && sleeps.exchange(kAwake, std::memory_order_acq_rel) != kAwake;
}

}  // namespace wiresum::shm
