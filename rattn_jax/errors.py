"""The one exception for everything that a user can put right."""


class UsageError(ValueError):
    """A value that a user gave breaks a rule.

    The message is one line that names the value, the rule and the remedy. `main.py` prints it
    without a traceback and exits with status 2.
    """
