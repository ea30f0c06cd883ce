"""Settings of the whole suite."""

import os

# Tests run side by side, one process per core; more threads than cores only hinder each other.
# Commands started by tests inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
