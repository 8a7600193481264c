"""The paper's tables and figure 4 as runs: see `__main__.py`."""
