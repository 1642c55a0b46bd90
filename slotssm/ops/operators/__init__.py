"""Kernels as operators of torch: schema, shapes without data, gradients, and the dtypes that they take."""
