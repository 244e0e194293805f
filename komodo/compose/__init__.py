"""Edits of Compose files as text: image, init, keys mount, the agent's public key."""
