r"""Writes images in the format of tensorflow-datasets, without TensorFlow.

    rattn prepare imagenet --train=ILSVRC2012_img_train.tar --validation=ILSVRC2012_img_val.tar \
        --out=/data/tfds
    rattn prepare images --data=photos --name=photos --out=/data/tfds

Train on it with --config.data_dir=/data/tfds, and --config.dataset.name=photos. Large images take
less time in training when they are scaled down here: --shorter-side=256. Run again, it goes on with
the files that are missing. --data is a folder of class folders, a table of images, or shards.
"""

import argparse
from collections.abc import Sequence
from functools import partial

from rattn_jax.cli import Parser, errors_on_one_line, positive, working
from rattn_jax.data import KNOWN, open_dataset
from rattn_jax.data.contents import digest, read_contents
from rattn_jax.data.imagenet_archives import check_md5, read_archives
from rattn_jax.data.places import name_of
from rattn_jax.data.prepare import Content, prepare
from rattn_jax.errors import Preempted, UsageError
from rattn_jax.parallel.cpus import num_cpus
from rattn_jax.runs.console import Console

_FLAGS = {"imagenet": ("train", "validation"), "images": ("data", "name")}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepares what the command line names."""
    parser = Parser("rattn prepare", __doc__)
    parser.add_argument("what", choices=("imagenet", "images"))
    parser.add_argument("--train", metavar="TAR", help="imagenet: ILSVRC2012_img_train.tar")
    parser.add_argument("--validation", metavar="TAR", help="imagenet: ILSVRC2012_img_val.tar")
    parser.add_argument(
        "--check-md5",
        action="store_true",
        help="imagenet: compare the archives with their published MD5 first",
    )
    parser.add_argument("--data", metavar="PLACE", help="images: a folder, a table or shards")
    parser.add_argument("--name", help="images: name of the dataset")
    parser.add_argument("--out", required=True, metavar="DIR", help="TFDS's folder, the data_dir")
    parser.add_argument(
        "--shorter-side",
        type=positive,
        metavar="N",
        help="scale larger images down to N pixels on the shorter side",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        default=num_cpus(),
        metavar="N",
        help="that work at once (all cores)",
    )
    options = parser.parse(arguments)
    for what, flags in _FLAGS.items():
        for flag in flags:
            if what == options.what and not vars(options)[flag]:
                parser.error(f"{what} needs --{flag}")
            if what != options.what and vars(options)[flag]:
                parser.error(f"--{flag} is for {what}: leave it out")
    if options.check_md5 and options.what != "imagenet":
        parser.error("--check-md5 is for imagenet: leave it out")
    with errors_on_one_line(parser.prog, options.out), working("listing the images") as console:
        content = (_imagenet if options.what == "imagenet" else _images)(options, console)
        counts = " and ".join(f"{len(s):,} {split}" for split, s in content.splits.items())
        console.say(f"{content.name}: {counts} images of {len(content.class_names):,} classes")
        phase = f"writing to {options.out}"
        console.enter(phase)
        try:
            folder = prepare(
                content,
                options.out,
                threads=options.threads,
                say=console.say,
                progress=partial(console.enter, phase),
            )
        except KeyboardInterrupt:
            raise Preempted("stopped: run again, and it goes on") from None
        print(f"in {folder}: train with --config.data_dir={options.out}")


def _imagenet(options: argparse.Namespace, console: Console) -> Content:
    if options.check_md5:
        for split in _FLAGS["imagenet"]:
            console.enter(f"reading {vars(options)[split]} for its MD5")
            check_md5(vars(options)[split], split)
    return read_archives(
        options.train,
        options.validation,
        options.shorter_side,
        say=console.say,
        progress=partial(console.enter, "listing the images"),
    )


def _images(options: argparse.Namespace, console: Console) -> Content:
    if options.name in KNOWN:
        raise UsageError(
            f"--name={options.name} is the name of a dataset that rattn_jax knows, and "
            "dataset.name would mean that one: choose another name"
        )
    dataset = open_dataset(name_of(options.data))
    console.say(dataset.summary())
    if dataset.label_sets is not None:
        raise UsageError(
            f"--data={options.data} has several classes an image, and the format has one: train on "
            "it as it is"
        )
    splits = {"train": dataset.train, "test": dataset.test}
    return Content(
        options.name,
        "1.0.0",
        dataset.class_names,
        splits,
        options.shorter_side,
        contents=digest(read_contents(dataset)),
    )


if __name__ == "__main__":
    main()
