"""Who may use the dashboard, and from where: names and origins, sessions, passwords, a proxy that names the user."""
