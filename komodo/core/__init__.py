"""Core: its API, database, settings, containers, and the documents that v1 cannot read."""
