"""A simulated Periphery agent, v1 and v2: how it reads its configuration, what it logs, and which Core it accepts."""
