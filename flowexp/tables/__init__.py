"""Paper tables and claims: their jobs, their results and how these are shown."""
