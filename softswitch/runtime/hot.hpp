// Function multiversioning for the loops over lanes.
//
// A library that ships in a wheel is compiled for the baseline instruction set; its hot loops are
// compiled several times and the dynamic linker picks the version that the CPU can run (ifunc).
// A program compiled at run time for this very machine (WIRESUM_NATIVE) needs none of that.
#pragma once

#if !defined(WIRESUM_NATIVE) && defined(__x86_64__) && defined(__gnu_linux__) && \
    defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define WIRESUM_HOT __attribute__((target_clones("avx512f", "avx2", "default"), noinline))
#else
// Not inlined: inside of a larger function the compiler forgets what __restrict promised.
#define WIRESUM_HOT __attribute__((noinline))
#endif

// For small helpers that must become part of the clone that calls them.
#define WIRESUM_INLINE inline __attribute__((always_inline))
