"""Speed and memory of the networks, beside the same ones in idiomatic Flax and in PyTorch.

Entry point: `python -m experiments.benchmark`, see `__main__.py`.
"""
