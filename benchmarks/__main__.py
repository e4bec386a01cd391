"""`python -m benchmarks`: the command `aragora-transport bench`."""

import sys

from aragora_transport.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["bench", *sys.argv[1:]]))
