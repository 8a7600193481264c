"""The smallest run without attention."""

from tests.tiny import make_config


def get_config():
    """For `main.py --config=tests/bare.py`."""
    return make_config(modules=0)
