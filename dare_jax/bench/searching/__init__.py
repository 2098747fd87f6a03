"""Searches timed, and what narrow keys lose."""
