"""The folder of a run: what is on disk, and how it is written and read."""
