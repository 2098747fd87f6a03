"""Large embedding tables: where rows lie, how they are read and moved."""
