#include "readers.hpp"

#include "errors.hpp"
#include "lines.hpp"

namespace wiresum {

Readers readers_of(int source, int readers, int reader, std::uint32_t workers) {
  const int ranks = static_cast<int>(workers);
  const bool all = readers == static_cast<int>(packet::Readers::kAll);
  const bool known = all ? reader == -1 : reader >= 0 && reader < ranks;
  if (source < -1 || source >= ranks || readers < 0 ||
      readers > static_cast<int>(packet::Readers::kAllBut) || !known) {
    refuse(lines::kBadReaders.of(source, readers, reader, workers));
  }
  return {static_cast<packet::Readers>(readers), all ? 0 : static_cast<std::uint32_t>(reader)};
}

std::string describe(const Readers& readers) {
  if (readers.kind == packet::Readers::kAll) return "";
  return (readers.kind == packet::Readers::kOnly ? ", for rank " : ", for all but rank ") +
         std::to_string(readers.rank);
}

}  // namespace wiresum
