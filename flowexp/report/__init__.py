"""Runs and tables as one HTML page, side by side, or as a data frame."""

from flowexp.report.frame import results

__all__ = ["results"]
