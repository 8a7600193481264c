"""One file for each run; `default.py` has every key, its unit and its source."""
