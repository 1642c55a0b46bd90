"""Episodes on disk and in batches.

`episodes` owns the HDF5 format; `batches` turns a file into reproducible torch batches.
"""
