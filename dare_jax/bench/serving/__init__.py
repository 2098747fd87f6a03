"""Servers under load: `bench serve`."""
