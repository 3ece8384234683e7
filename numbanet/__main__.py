"""`python -m numbanet` is the command line."""

import sys

from numbanet.cli import main

sys.exit(main())
