"""Values that a log has under other names: buckets of numbers, sets."""
