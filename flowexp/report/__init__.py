"""Runs and tables as a person looks at them: one HTML page, side by side, or as a data frame."""

from flowexp.report.frame import results

__all__ = ["results"]
