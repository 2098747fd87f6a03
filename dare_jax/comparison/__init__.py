"""Several models over several seeds: plan, run, estimate, show."""
