"""The registry of the checks that run before an upgrade: an id, a sentence and a hint for each kind of finding."""
