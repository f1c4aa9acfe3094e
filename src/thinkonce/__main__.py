"""`python -m thinkonce` is the command `thinkonce`."""

import sys

from thinkonce.cli import main

sys.exit(main())
