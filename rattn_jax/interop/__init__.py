"""Weights and networks that come from other libraries, or go to them."""
