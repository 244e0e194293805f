"""Benchmarks: the tool against other tools, and against the same commands without its durability."""
