"""One mesh axis over all devices: tables by rows, batches by windows."""
