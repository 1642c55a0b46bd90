"""Adapters to kernels of other packages, each loaded only where it is installed and asked for."""
