"""Edits of files as text: env files, TOML, splices and diffs, and the pipeline that plans all edits."""
