"""``python -m sim2real`` is the ``sim2real`` command."""

from sim2real.cli.main import main

main()
