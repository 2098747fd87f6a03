"""Runs that start from what an earlier run has learned."""
