"""`python -m scalejax.cli` is the same as `scalejax`."""

from scalejax.cli.main import main

main()
