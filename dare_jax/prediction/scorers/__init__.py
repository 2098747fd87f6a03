"""Who scores: a run or a bundle, behind one protocol."""
