"""One mesh axis over all devices, and what their processes tell each other."""
