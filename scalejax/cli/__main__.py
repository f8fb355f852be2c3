"""`python -m scalejax.cli`."""

from scalejax.cli.main import main

main()
