"""The models of the published PyTorch code: their weights and its choices."""
