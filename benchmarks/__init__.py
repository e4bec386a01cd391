"""What the layers cost: run `python -m benchmarks`, or one suite, such as `python -m benchmarks.overhead`."""
