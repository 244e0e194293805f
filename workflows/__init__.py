"""The workflows: the order of the steps, their approvals and their undos. No I/O, no system clock, no sets."""
