"""Errors that programs print as one line, without a traceback."""


class UsageError(ValueError):
    """A value given by the user is invalid: exit status 2.

    The message is one line that names the value, the rule and the remedy.
    """

    def __str__(self) -> str:
        return super().__str__().replace("\n", "\\n")  # the value may contain it


class DataError(Exception):
    """Examples of a dataset cannot be used: exit status 1.

    The message is one line that names them and the remedy.
    """


class SaveError(Exception):
    """A checkpoint could not be written: exit status 1.

    The message is one line that names the step, the reason and the remedy.
    """


class NonfiniteError(Exception):
    """An update gave NaN or infinity: exit status 1.

    The message is one line that names the step, where its batch was kept, and the remedy.
    """


class Preempted(Exception):  # noqa: N818 - not an error: the run resumes when it is started again
    """A signal, such as SIGTERM or Ctrl-C, has ended the run, after saving: exit status 75.

    The message is one line that names the step.
    """
