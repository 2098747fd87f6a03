"""Values that a log has under other names: ranges of numbers, sets."""
