"""An agent: its systemd unit, its survey, and the findings that refuse or warn."""
