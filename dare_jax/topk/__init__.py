"""Exact choice of the k largest, as fast as the scores can be read."""
