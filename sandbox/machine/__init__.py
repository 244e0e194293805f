"""A simulated machine: SSH, sudo, systemd with its journal, disks, downloads.

`host` holds the state of one machine, `ssh` runs what a client asks for in a real shell, and `control` serves the
stand-ins (`systemctl`, `journalctl`, `curl`, …) that these commands call.
"""
