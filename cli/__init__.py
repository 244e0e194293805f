"""The commands of `komodo-upgrade`: one file each, and how things are shown."""
