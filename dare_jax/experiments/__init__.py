"""A config, what it must hold, and the parts that it makes."""
