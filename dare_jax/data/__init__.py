"""From the history store to batches: splits, negatives, windows, ids known."""
