"""Steps on a server: survey, preflight, backup, staging, switch, verification, automatic rollback."""
