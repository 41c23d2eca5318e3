"""Metrics from the record of a run, plots, pages, progress."""
