"""``python -m flowexp`` is the command ``flowexp``."""

import sys

from flowexp.cli import main

sys.exit(main())
