"""Steps on Core's host: survey, preflight, backup, dumps, upgrade, rollback."""
