"""Benchmarks: `python -m dare_jax.bench NAME`."""
