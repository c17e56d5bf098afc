"""`python -m compatlearn`, and so `accelerate launch -m compatlearn train ...`."""

from .cli import main

main()
