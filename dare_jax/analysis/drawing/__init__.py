"""Figures and the report, drawn from the JSON of the analyses."""
