"""Runs and tables as a person looks at them: one self-contained HTML page, or side by side."""
