"""One remote machine: connect, run, read, write atomically, detached jobs, tunnels, sudo. Knows nothing of Komodo."""
