"""What an accelerator computes, how fast, and networks trained on it.

Entry point: `python -m experiments.accelerator`, see `__main__.py`.
"""
