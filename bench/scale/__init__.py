"""How a run of many servers behaves: time, CPU, memory, histories and open files, upgraded and rolled back."""
