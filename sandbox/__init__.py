"""A simulated Komodo fleet behind real SSH, for the demo, for rehearsals and for tests. No root, no network."""
