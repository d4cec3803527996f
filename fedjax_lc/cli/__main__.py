"""`python -m fedjax_lc.cli` is `fedjax-lc`."""

from __future__ import annotations

import sys

from fedjax_lc.cli import main

if __name__ == "__main__":
    sys.argv[0] = "fedjax-lc"  # so that result files tell a command that runs
    sys.exit(main())
