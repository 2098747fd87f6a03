"""What runs have learned, measured: one JSON file and one figure each."""
