"""Paths as users write them.

path_of("~/photos")      # /home/me/photos
path_of("./~")           # a folder of this name
"""

import os

from etils import epath

from rattn_jax.errors import UsageError


def path_of(place: epath.PathLike) -> epath.Path:
    """The path, with a `~` at its beginning expanded as shells do it.

    epath's own `expanduser` expands that of "./~", too, for it has left the dot out.

    Raises:
        UsageError: a URL of no object store.
    """
    text = os.fspath(place)
    try:
        return epath.Path(os.path.expanduser(text))
    except KeyError as error:
        raise UsageError(
            f"{text!r} begins like a URL, and {error} is no object store: choose a path without ://"
        ) from error
