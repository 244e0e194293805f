"""The command `komodo-upgrade`: its commands (`commands/`), their client, and their output."""
