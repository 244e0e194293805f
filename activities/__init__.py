"""One idempotent step each: thin adapters between the workflows and what `komodo` and `hosts` know."""
