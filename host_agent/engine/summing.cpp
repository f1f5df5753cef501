#include "summing.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "big_endian.hpp"
#include "division.hpp"
#include "fingerprint.hpp"

namespace wiresum {
namespace {

// The most work in one turn of the engine's loop, so that replies never wait for long.
constexpr int kDataChunksPerTurn = 64;
constexpr int kExponentChunksPerTurn = 16;  // of tensors without data that wait for them

Sum& sum_of(const Chunk& chunk) { return static_cast<Sum&>(*chunk.cargo.piece); }

}  // namespace

Summing::Summing(const Lease& lease, const EngineOptions& options,
                 const std::shared_ptr<const Codecs>& codecs, Stats& stats, const Ended& ended)
    : rank_(lease.rank),
      lanes_(lease.lanes),
      data_window_(Division(lease.slots).data.count / 2),
      keep_nonfinite_(options.keep_nonfinite),
      codecs_(codecs),
      stats_(stats),
      ended_(ended),
      exponents_(stream_config(lease, options, StreamName::Exponent), stats,
                 stats.exponent_contributions, stats.exponent_results),
      data_(stream_config(lease, options, StreamName::Data), stats, stats.data_contributions,
            stats.data_results) {}

void Summing::take(std::vector<std::unique_ptr<Sum>> sums, std::size_t pieces) {
  if (sums.empty()) return;
  Group<Sum>& group = turns_.add(std::move(sums), lanes_);
  for (const auto& sum : group.pieces) {
    const auto print = [&](packet::Op op) {
      return fingerprint({sum->sequence, pieces, sum->count, static_cast<std::uint64_t>(sum->dtype),
                          bits_of(sum->codec->field()), sum->block_elements, sum->average ? 1u : 0u,
                          sum->readers.on_wire(), static_cast<std::uint64_t>(op)});
    };
    sum->group = &group;
    sum->writes = sum->readers.has(rank_);
    sum->exponent_form.fingerprint = print(packet::Op::kMax);
    sum->data_form = {.fingerprint = print(packet::Op::kSum),
                      .readers = sum->readers.on_wire(),
                      .gets = sum->writes};
    stats_.elements.add(sum->count);
    if (sum->blocks == 0) finish_if_complete(*sum);
  }
}

// -- sending

bool Summing::send_exponents(Transport& transport, Nanoseconds now, bool& more) {
  // One exponent chunk opens the way for many data chunks: they take turns, so that the first data
  // leave early and the block is still in the cache when it is quantized. Those of tensors
  // without such data leave together.
  for (int opened = 0; opened < kExponentChunksPerTurn; ++opened) {
    const Sum* sum = open_exponents();
    more |= sum != nullptr && (sum->in_ring() || opened + 1 == kExponentChunksPerTurn);
    if (sum == nullptr || sum->in_ring()) break;
  }
  return exponents_.flush(transport, now);
}

bool Summing::send_data(Transport& transport, Nanoseconds now, std::uint32_t most, bool& more) {
  int opened = 0;
  while (opened < kDataChunksPerTurn && open_data(most)) ++opened;
  more |= opened == kDataChunksPerTurn;
  return data_.flush(transport, now);
}

// How many blocks may be anywhere between their exponent and their sum: those of the data window
// and as many again, so that the data never wait for the exponents' round trip, and chunks of
// exponents to fill. Not more: blocks that were looked at long ago have left the cache when they
// are quantized, and at the start of a tensor all ranks would look at blocks instead of sending the
// first ones. The pieces of a collective have exponent chunks of their own; with fewer than one for
// each of them, and a chunk of data for each, they would wait for each other for ever.
std::uint64_t Summing::blocks_ahead(const Sum& sum) const {
  const std::uint64_t in_window =
      data_.congestion_window() * sum.elements_per_chunk(lanes_) / kBlock + 1;
  return kWindowsAhead * in_window + 2 * std::uint64_t{lanes_} * sum.group->pieces.size();
}

// The sum whose chunk was opened; nullptr: none.
const Sum* Summing::open_exponents() {
  if (!exponents_.room()) return nullptr;
  Sum* const next = turns_.next();
  if (next == nullptr) return nullptr;
  Sum& sum = *next;
  const std::uint64_t first = sum.exponents_opened;
  const auto blocks =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(lanes_, sum.blocks - first));
  if (sum.in_ring()) {
    if (blocks_kept_ + blocks_in_agreement_ + blocks > blocks_ahead(sum)) {
      return nullptr;
    }
    blocks_in_agreement_ += blocks;
  }

  const Chunk& chunk = exponents_.open({&sum, first, blocks}, sum.exponent_form);
  std::uint8_t* lanes = exponents_.lanes(chunk);
  const std::size_t elements =
      (blocks - 1) * sum.block_elements + sum.elements_of(first + blocks - 1);
  sum.codec->exponents(sum.dtype, sum.address_of(first), elements, lanes);
  std::memset(lanes + 4 * blocks, 0, 4 * (lanes_ - blocks));
  sum.exponents_opened += blocks;
  return &sum;
}

bool Summing::open_data(std::uint32_t most) {
  if (ready_.empty() || !data_.room(most)) return false;
  const Ready turn = ready_.front();
  Sum& sum = *turn.sum;
  const std::uint64_t first = sum.elements_packed;
  const auto elements = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(turn.end - first, sum.elements_per_chunk(lanes_)));

  const Chunk& chunk = data_.open({&sum, first, elements}, sum.data_form);
  if (sum.small()) {
    pack_each(sum, first, elements, data_.lanes(chunk));
  } else {
    pack(sum, first, elements, data_.lanes(chunk));
  }
  sum.elements_packed += elements;
  ++sum.chunks_open;
  if (sum.elements_packed == turn.end) ready_.pop_front();
  return true;
}

void Summing::pack(const Sum& sum, std::uint64_t first, std::uint32_t elements,
                   std::uint8_t* lanes) const {
  const Codec& codec = *sum.codec;
  std::size_t written = 0;
  for (std::uint32_t done = 0; done < elements;) {
    const std::uint64_t at = first + done;
    const BlockRing::Entry& block = sum.sent[at / kBlock];
    const std::size_t offset = at % kBlock;
    const std::size_t n = std::min<std::size_t>(kBlock - offset, elements - done);
    written += codec.encode(sum.dtype, block.data + offset * size_of(sum.dtype), n, &block.code,
                            lanes + 4 * written);
    done += static_cast<std::uint32_t>(n);
  }
  for (; written < lanes_; ++written) store_big_endian(lanes + 4 * written, codec.zero_lane());
}

// -- receiving

// Exponents are agreed in the order of their chunks, because they number the data. Until then they
// are kept in the send buffer, which a chunk with a result does not need any more.
void Summing::apply_exponents(const Chunk& chunk, const std::uint8_t* lanes) {
  std::memcpy(exponents_.lanes(chunk), lanes, 4 * std::size_t{chunk.cargo.count});
}

void Summing::advance() {
  exponents_.advance([this](const Chunk& chunk) { agree(chunk); });
  data_.advance([this](const Chunk& chunk) { release(chunk); });
}

void Summing::agree(const Chunk& chunk) {
  Sum& sum = sum_of(chunk);
  const std::uint8_t* lanes = exponents_.lanes(chunk);
  if (sum.small()) {
    agree_each(chunk, lanes);
  } else {
    if (sum.in_ring()) sum.sent.reserve(chunk.cargo.count);
    const std::uint64_t before = sum.blocks_to_send;
    for (std::uint32_t i = 0; i < chunk.cargo.count; ++i) {
      const std::uint64_t block = chunk.cargo.first + i;
      const auto code = load_big_endian<std::uint32_t>(lanes + 4 * i);
      if (sum.codec->sends(code)) {
        const std::size_t elements = sum.elements_of(block);
        sum.sent.push({sum.address_of(block), code, static_cast<std::uint32_t>(elements)});
        ++sum.blocks_to_send;
        sum.elements_to_send += elements;
        stats_.blocks_sent.add();
      } else {
        leave_unsent(sum, block, code);
        const bool nonfinite = sum.codec->nonfinite(code);
        (nonfinite   ? stats_.blocks_nonfinite
         : code == 0 ? stats_.blocks_zero
                     : stats_.blocks_sent)
            .add();
      }
    }
    blocks_kept_ += sum.blocks_to_send - before;
  }
  sum.exponents_agreed += chunk.cargo.count;
  if (sum.in_ring()) blocks_in_agreement_ -= chunk.cargo.count;

  // The last exponents of a row of the group: no piece behind this one has any there.
  bool row_agreed = true;
  for (auto behind = sum.group->pieces.rbegin(); behind->get() != &sum; ++behind) {
    row_agreed = row_agreed && (*behind)->blocks <= chunk.cargo.first;
  }
  if (row_agreed) schedule(*sum.group);
  finish_if_complete(sum);
}

// Gives chunks their place in the order, as soon as all exponents of a row of exponent chunks are
// agreed: rows of data chunks of each piece in turn. A chunk that is not full is a piece's last
// one. So the numbering depends on the agreed exponents alone, never on timing.
void Summing::schedule(Group<Sum>& group) {
  const bool alone = group.pieces.size() == 1;
  const std::uint64_t row = row_of(data_window_, group.pieces.size());
  for (bool any = true; any;) {
    any = false;
    for (const auto& sum : group.pieces) {
      const std::size_t chunk = sum->elements_per_chunk(lanes_);
      std::uint64_t elements = sum->elements_to_send - sum->elements_scheduled;
      if (!sum->all_agreed()) elements -= elements % chunk;
      if (!alone) elements = std::min<std::uint64_t>(elements, row * chunk);
      if (elements == 0) continue;
      sum->elements_scheduled += elements;
      ready_.push_back({sum.get(), sum->elements_scheduled});
      any = true;
    }
  }
}

// A block whose result follows from its code, or one that the caller wants as it is.
void Summing::leave_unsent(Sum& sum, std::uint64_t block, std::uint32_t code) const {
  if (sum.codec->nonfinite(code) && keep_nonfinite_) {
    sum.leave(block);
  } else if (sum.writes) {
    sum.codec->fill(sum.dtype, code, sum.address_of(block), sum.elements_of(block));
  }
}

void Summing::apply_data(const Chunk& chunk, const std::uint8_t* lanes) {
  const Sum& sum = sum_of(chunk);
  if (!sum.writes) return;
  if (sum.small()) return apply_each(chunk, lanes);
  const Codec& codec = *sum.codec;
  const std::size_t per_lane = fields_per_lane(codec.field());
  for (std::uint32_t done = 0; done < chunk.cargo.count;) {
    const std::uint64_t at = chunk.cargo.first + done;
    const BlockRing::Entry& block = sum.sent[at / kBlock];
    const std::size_t offset = at % kBlock;
    const std::size_t n = std::min<std::size_t>(kBlock - offset, chunk.cargo.count - done);
    codec.decode(sum.dtype, lanes + 4 * (done / per_lane), n, &block.code, sum.average,
                 block.data + offset * size_of(sum.dtype));
    done += static_cast<std::uint32_t>(n);
  }
}

// A sum's chunks leave the window in order, so all its blocks before the last whole one here are
// done with.
void Summing::release(const Chunk& chunk) {
  Sum& sum = sum_of(chunk);
  if (!sum.small()) {
    const std::uint64_t end = chunk.cargo.first + chunk.cargo.count;
    const bool last = sum.all_packed() && end == sum.elements_to_send;
    const std::uint64_t done = last ? sum.blocks_to_send : end / kBlock;
    blocks_kept_ -= done - sum.sent.tail();
    sum.sent.release_before(done);
  }
  --sum.chunks_open;
  finish_if_complete(sum);
}

void Summing::finish_if_complete(Sum& sum) {
  if (sum.finished || !sum.complete()) return;
  sum.finished = true;
  ended_(sum.ticket, nullptr, std::move(sum.nonfinite));
}

// Data wait for exponents, so exponents come first.
const Stream& Summing::slowest() const {
  const Chunk* exponents = exponents_.oldest();
  const Chunk* data = data_.oldest();
  if (data == nullptr) return exponents_;
  const bool first = exponents != nullptr && exponents->send_serial != 0 &&
                     exponents->cargo.piece->sequence <= data->cargo.piece->sequence;
  return first ? exponents_ : data_;
}

// -- handing over to another carrier

void Summing::close_from(std::uint64_t exponent_end, std::uint64_t data_end) {
  exponents_.close_from(exponent_end, [](const Chunk& chunk) {
    sum_of(chunk).exponents_opened -= chunk.cargo.count;
  });
  data_.close_from(data_end, [](const Chunk& chunk) {
    sum_of(chunk).elements_packed -= chunk.cargo.count;
    --sum_of(chunk).chunks_open;
  });
}

Rest Summing::rest_of(Sum& sum) const {
  Done done;
  done.elements = std::min(sum.exponents_agreed * sum.block_elements, sum.count);
  done.nonfinite = std::move(sum.nonfinite);
  const std::size_t size = size_of(sum.dtype);
  std::uint64_t block = sum.elements_packed / sum.block_elements;
  if (sum.elements_packed < sum.elements_to_send) {
    done.lanes = sum.elements_packed % sum.block_elements / fields_per_lane(sum.codec->field());
  } else {
    block = sum.blocks_to_send;
  }
  for (; block < sum.blocks_to_send; ++block) {
    done.sent.push_back(
        sum.small() ? SentBlock{sum.data + sum.sent_at[block] * size, sum.sent_codes[block], 1}
                    : sum.sent[block]);
  }
  return {sum.ticket,
          std::make_unique<PackedSum>(codecs_, *sum.codec, sum.dtype, sum.average, sum.data,
                                      sum.count, sum.readers, sum.writes, std::move(done))};
}

}  // namespace wiresum
