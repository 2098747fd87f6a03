"""State on disk or in a bucket: written, verified, read back."""
