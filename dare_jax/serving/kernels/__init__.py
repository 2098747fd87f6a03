"""Kernels that search keys without writing their scores to memory."""
