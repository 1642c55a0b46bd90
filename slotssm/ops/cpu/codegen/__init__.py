"""Code generation: SIMD vectors, functions of them, and the compilation of kernels."""
