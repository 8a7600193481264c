"""Checks an accelerator's numbers, measures its speed, and trains networks on it.

Entry point: `python -m experiments.accelerator`, see `__main__.py`.
"""
