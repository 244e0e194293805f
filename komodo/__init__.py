"""What we know about Komodo: its files, keys, logs, releases, API and database. Opens no SSH, knows no Temporal."""
