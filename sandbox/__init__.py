"""A simulated Komodo fleet to rehearse on: real SSH, real files, real shells; Komodo, Docker and systemd played."""
