"""One remote machine: connect, run, read, push, forward, detached jobs. Knows neither Komodo nor Temporal."""
