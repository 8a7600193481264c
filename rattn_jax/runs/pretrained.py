"""Networks that are trained already: those of the package, and those of a hub, as folders.

find_folder("attention56_digits")        # comes with the package
find_folder("hf://owner/name")           # downloaded once from huggingface.co, or $HF_ENDPOINT
find_folder("runs/digits")               # any run, as it is
"""

import difflib
import re

from etils import epath

from rattn_jax.errors import UsageError
from rattn_jax.runs.files import absolute
from rattn_jax.runs.weights_folder import FILES

_PACKAGED = epath.Path(__file__).parents[1] / "pretrained"
_HUB = "hf://"


def list_pretrained() -> list[str]:
    """Names of the networks that come with the package, sorted."""
    return sorted(path.name for path in _PACKAGED.iterdir() if path.is_dir())


def find_folder(place: epath.PathLike) -> epath.Path:
    """The folder of a trained network: of a run, or of weights.

    Args:
        place: a folder; a name of `list_pretrained`, unless there is a folder of that name;
            or "hf://owner/name" or "hf://owner/name@revision".

    Raises:
        UsageError: there is no such name, or the hub does not have it or cannot be reached.
    """
    text = str(place)
    if text.startswith(_HUB):
        return _download(text)
    folder = absolute(place)
    if "/" in text or folder.exists():
        return folder
    if text in list_pretrained():
        return _PACKAGED / text
    close = difflib.get_close_matches(text, list_pretrained(), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UsageError(
        f"{text!r} is neither a folder nor a pretrained network: {hint}must be the folder of a "
        f"trained run, {_HUB}OWNER/NAME, or one of {', '.join(list_pretrained())}"
    )


def _download(place: str) -> epath.Path:
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", place)
    if not match:
        raise UsageError(f"{place!r} is no network of the hub: must be hf://OWNER/NAME[@REVISION]")
    try:
        import huggingface_hub
    except ImportError as error:
        raise UsageError(
            f"{place} is read with huggingface_hub, which is not installed: pip install -e '.[hub]'"
        ) from error
    repository, revision = match.groups()
    try:
        found = huggingface_hub.snapshot_download(
            repository, revision=revision, allow_patterns=list(FILES)
        )
    except Exception as error:  # of many kinds: of the hub, of HTTP and of the file system
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UsageError(
            f"{place} cannot be downloaded ({reason}): correct the name, look whether the hub can "
            "be reached, or download the folder by hand and give its path"
        ) from error
    return epath.Path(found)
