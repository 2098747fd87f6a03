"""CSV as it comes: separators, quotes, spaces, columns."""
