"""What the layers cost. `python -m benchmarks` is `aragora-transport bench`.

Each suite is one module, whose docstring is also its text in docs/benchmarks.md. Imports within are
relative: in a wheel this directory is `aragora_transport._benchmarks`.
"""
