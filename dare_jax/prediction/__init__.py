"""Bulk scores of files: input, histories, windows, scorers, output, top N."""
