"""Pages for a browser: the dashboard (Starlette) and the report as one HTML file. Templates and assets are in here."""
