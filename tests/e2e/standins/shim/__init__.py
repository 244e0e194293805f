"""Replaces the package `cryptography` inside a packed stand-in: only X25519, so that one file runs anywhere."""
