"""Measuring the processes of a benchmark and the activities of its workflows."""
