"""One TFDS builder a log."""
