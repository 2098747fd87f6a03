"""Which ids a training knows, which become unknown, and what is told of it."""
