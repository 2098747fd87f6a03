"""How well a run predicts: for whom, of how much history, beside others."""
