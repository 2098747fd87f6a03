"""One training in its folder: from start to result, read back later."""
