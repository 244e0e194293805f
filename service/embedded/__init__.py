"""The embedded Temporal server and worker: supervisor, processes, state on disk, systemd user unit."""
