"""End to end on real parts: systemd, sshd, Docker, Compose and a database. `make e2e`; see docs/e2e.md."""
