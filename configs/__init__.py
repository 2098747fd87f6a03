"""Configurations; `base.py` lists every field."""
