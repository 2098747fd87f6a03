"""What a machine with a GPU or a TPU shows: right answers, and how fast."""
