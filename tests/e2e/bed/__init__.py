"""A Komodo v1.19.5 installation on real machines, made of containers with systemd, on a network of its own."""
