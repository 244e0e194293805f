"""End-to-end tests on real systemd, sshd, Docker, Compose and databases: `make e2e`, see docs/e2e.md."""
