"""From a raw log to batches: builders, the history store, splits, negatives."""
