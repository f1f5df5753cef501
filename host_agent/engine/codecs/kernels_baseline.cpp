// The codec's inner loops for any machine.
#define WIRESUM_KERNELS kKernelsBaseline
#define WIRESUM_KERNELS_NAME "baseline"
#include "codecs/kernels.inl"
