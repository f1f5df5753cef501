// The codec's inner loops for machines with AVX2.
#define WIRESUM_KERNELS kKernelsAvx2
#define WIRESUM_KERNELS_NAME "avx2"
#include "codecs/kernels.inl"
