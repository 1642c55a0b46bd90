"""Kernels in Triton, for GPUs: the selective scan, and the causal convolution with SiLU."""
