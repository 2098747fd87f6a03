"""Search from the cached attention keys of a user."""
