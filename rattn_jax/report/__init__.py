"""The page of a run, report.html: numbers, curves, confusions, masks. One file, no network."""

from rattn_jax.report.writer import PAGE, ReportWriter

__all__ = ["PAGE", "ReportWriter"]
