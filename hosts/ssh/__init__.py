"""SSH connections: one shared connection per host, keys, known hosts, and tunnels."""
