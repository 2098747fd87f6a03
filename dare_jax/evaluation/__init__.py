"""Metrics of predictions and of searches; which validation is best."""
