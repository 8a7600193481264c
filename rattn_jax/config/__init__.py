"""The config of a run: what its values may be."""
