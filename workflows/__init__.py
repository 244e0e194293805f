"""The story: which step, in what order, who approves, what undoes it. No I/O, no clocks, no sets."""
