"""``python -m qcomp``, and the entry point of the command ``qcomp``."""

__all__ = ["main"]


def main() -> None:
    """Run the command line; Ctrl-C while it is still being loaded is no fault either."""
    try:
        from qcomp.cli.main import main as run
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    run()


if __name__ == "__main__":
    main()
