"""Devices and processes: who computes what, and how all of them stop."""
