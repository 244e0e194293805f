"""Payloads that leave a process are encrypted and authenticated: key ring, codec, binding to a run, codec server."""
