"""The foundation of the workflows: state of a run, gates, undo, failures, calls of activities with their timeouts."""
