"""Errors that programs print as one line, without a traceback."""

STOPPED = 75  # exit status after a signal: EX_TEMPFAIL of sysexits.h, try again


class _OneLineError(Exception):
    """An error whose message is one line, whatever names of files are in it."""

    def __str__(self) -> str:
        return super().__str__().replace("\n", "\\n")


class UsageError(_OneLineError, ValueError):
    """A value given by the user is invalid: exit status 2.

    The message is one line that names the value, the rule and the remedy.
    """


class DataError(_OneLineError):
    """Examples of a dataset cannot be used: exit status 1.

    The message is one line that names them and the remedy.
    """


class SaveError(_OneLineError):
    """A checkpoint could not be written: exit status 1.

    The message is one line that names the step, the reason and the remedy.
    """


class NonfiniteError(_OneLineError):
    """An update gave NaN or infinity: exit status 1.

    The message is one line that names the step, where its batch was kept, and the remedy.
    """


class Preempted(_OneLineError):  # noqa: N818 - not an error: the run resumes when it is started again
    """A signal, such as SIGTERM or Ctrl-C, has ended the run, after saving: exit status STOPPED.

    The message is one line that names the step.
    """
