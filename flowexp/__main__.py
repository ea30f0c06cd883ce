"""``python -m flowexp`` is the command ``flowexp``."""

import os
import sys

# ``-m`` looks into the current folder before all others, where a torch.py may lie; the command
# looks there last.
if sys.path[0] in ("", os.getcwd()) and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))

from flowexp.cli import program

program()
