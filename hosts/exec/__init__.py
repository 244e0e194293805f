"""Execution on a host: SSH sessions, the wire protocol of scripts, and the places of detached jobs."""
