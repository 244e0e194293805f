"""The same upgrade of a server by other tools. Run as programs, never imported."""
