"""The command line."""

from scalejax.cli.main import main as main
