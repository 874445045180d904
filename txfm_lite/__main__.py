"""``python -m txfm_lite``."""

from .cli import main

main()
