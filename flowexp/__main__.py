"""``python -m flowexp`` is the command ``flowexp``."""

from flowexp.cli import program

program()
