"""From a run to a bundle: its programs, tables and maps, checked and placed."""
