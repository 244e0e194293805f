"""Stands in for the package `cryptography` inside a packed stand-in: X25519 alone, so that one file runs anywhere."""
