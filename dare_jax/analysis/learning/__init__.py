"""What a run did while it learned, what it costs, and what it holds."""
