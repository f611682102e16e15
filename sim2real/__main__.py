"""The ``sim2real`` command, which is also ``python -m sim2real``."""

from __future__ import annotations


def main() -> None:
    """Run the command; Ctrl-C ends it without a traceback, also while it is still being loaded."""
    try:
        from sim2real.cli.main import main as run_command  # noqa: PLC0415 - it takes a second

        run_command()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
