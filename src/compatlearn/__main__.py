"""`python -m compatlearn`, and so `accelerate launch -m compatlearn train ...`."""

from .cli.app import main

main()
