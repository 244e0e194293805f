"""Crash at every step: every activity call of an upgrade meets a dead worker, a cut line and a dead Temporal."""
