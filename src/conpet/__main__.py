"""`python -m conpet`: the command line."""

import sys

from conpet.cli import main

sys.exit(main())
