"""Paths as users write them.

path_of("~/photos")      # /home/me/photos
path_of("./~")           # a folder of this name
"""

import os

from etils import epath


def path_of(place: epath.PathLike) -> epath.Path:
    """The path, with a `~` at its beginning expanded as shells do it.

    epath's own `expanduser` expands that of "./~", too, for it has left the dot out.
    """
    return epath.Path(os.path.expanduser(os.fspath(place)))
