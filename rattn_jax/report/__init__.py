"""The page of a run, report.html: numbers, curves, confusions, masks. One file, no network."""
