// The codec's inner loops for machines with AVX512.
#define WIRESUM_KERNELS kKernelsAvx512
#define WIRESUM_KERNELS_NAME "avx512"
#include "codecs/kernels.inl"
