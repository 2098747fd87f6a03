"""Files whose rows are to be scored, of either kind."""
