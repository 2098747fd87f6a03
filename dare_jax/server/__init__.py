"""The HTTP server over a bundle: user state, scoring, limits, metrics."""
