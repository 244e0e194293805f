"""What operators of Temporal and of workers need: workers that poll, and what Temporal knows about a run."""
