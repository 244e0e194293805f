"""Steps on the database: dumps, their proof, and what a rollback replaces."""
