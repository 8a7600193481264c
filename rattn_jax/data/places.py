"""Says what lies at a place: a folder of class folders, a table of images, or shards.

name_of("photos")               # "folder:photos", "table:photos" or "shards:photos"
name_of("photos/labels.csv")    # "table:photos/labels.csv"
"""

from etils import epath

from rattn_jax.config.paths import path_of
from rattn_jax.config.schema import FOLDER, SHARDS, TABLE
from rattn_jax.data import image_shards, table_files
from rattn_jax.data.image_files import LeftOut
from rattn_jax.data.image_layout import find_layout
from rattn_jax.data.labels import find_column
from rattn_jax.data.part_files import METADATA, list_files
from rattn_jax.errors import UsageError


def name_of(place: str) -> str:
    """The name of the dataset that lies at a place, for `open_dataset`.

    What a folder holds: a table, if one in it is called "metadata" and has labels; images in class
    folders, if there are two; shards; another table; otherwise class folders, which are then found
    lacking.
    """
    path = path_of(place)
    suffix = path.suffix.lower()
    if not path.is_dir():
        kind = TABLE if suffix in table_files.SUFFIXES else FOLDER
        return (SHARDS if suffix == image_shards.SUFFIX else kind) + place
    tables = list_files(path, table_files.SUFFIXES)
    is_metadata = bool(tables) and tables[0].stem == METADATA
    if _has_classes(path) and not (is_metadata and _has_labels(tables[0])):
        return FOLDER + place
    if is_metadata:
        return TABLE + place
    if list_files(path, [image_shards.SUFFIX]):
        return SHARDS + place
    return (TABLE if tables else FOLDER) + place


def _has_classes(folder: epath.Path) -> bool:
    try:
        return len(find_layout(folder, LeftOut()).train) > 1
    except UsageError:
        return False


def _has_labels(file: epath.Path) -> bool:
    try:
        return (
            find_column("label", table_files.read_table(file).columns, None, str(file)) is not None
        )
    except UsageError:  # several columns, or a damaged file, of which the reader says more
        return True
