"""Komodo's programs and the dump tools where the real ones are not at hand: the sandbox's logic in real processes."""
