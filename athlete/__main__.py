"""`python -m athlete`, where the folder of the `athlete` command is not on the path."""

from athlete.cli.main import main

main()
