"""One idempotent step each: thin adapters between the workflows and the packages `komodo` and `hosts`."""
