"""Messages of workflows and activities, the fleet file, and the exceptions: frozen dataclasses without I/O."""
