"""State and step, losses, metrics, checkpoints: what the loop stands on."""
