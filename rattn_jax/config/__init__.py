"""The config of a run: typed values, and what they may be."""
