"""The smallest runs on data of every kind."""

from tests.tiny import make_config


def changed(**changes):
    """The smallest run, with dotted keys as `dataset__name`."""
    config = make_config(modules=0)
    for key, value in changes.items():
        config.update_from_flattened_dict({key.replace("__", "."): value})
    return config


def streaming(**changes):
    return changed(normalization="imagenet", dataset__max_resident_bytes=0, **changes)


def folder_config(folder, **changes):
    always = {"dataset__name": f"folder:{folder}", "dataset__image_size": 8, "batch_size": 4}
    return changed(**always | changes)
