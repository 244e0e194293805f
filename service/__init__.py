"""How a Temporal server is reached: the user's own, or the embedded one with its supervisor and worker."""
