"""State and step, losses, batches onto the mesh, clusters learned from time."""
