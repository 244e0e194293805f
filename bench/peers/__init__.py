"""The same upgrade of a server by other tools, each in its own way. Run as programs, never imported."""
