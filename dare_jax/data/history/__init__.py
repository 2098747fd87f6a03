"""Histories as batches hold them, and the times of their behaviors."""
