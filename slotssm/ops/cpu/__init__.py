"""Compiled kernels for the CPU: LLVM vector code through numba, wrapped as differentiable torch operators.

Importing the operators loads neither numba nor llvmlite; the first call does.
"""
