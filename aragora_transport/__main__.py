"""`python -m aragora_transport` is the `aragora-transport` command."""

from aragora_transport.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
