"""A sweep over config fields, by Optuna, over ordinary runs."""
