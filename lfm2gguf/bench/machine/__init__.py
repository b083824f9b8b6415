"""The machine: its environment, its processes, and what its memory allows."""
