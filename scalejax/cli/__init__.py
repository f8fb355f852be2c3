"""The command line."""

import sys

from scalejax.cli import exit_codes

# Importing the verbs takes a moment, in which a user may press Ctrl-C, too.
try:
    from scalejax.cli.main import main as main
except KeyboardInterrupt:
    sys.exit(exit_codes.of_interrupt())
