"""Steps for the whole fleet: run folders, locks, manifests, the report, monitoring."""
