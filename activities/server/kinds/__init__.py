"""Ways in which an agent is installed, each with the same interface."""
