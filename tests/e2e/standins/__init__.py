"""Stand-ins for Komodo's programs and the dump tools: the sandbox's logic in real processes."""
