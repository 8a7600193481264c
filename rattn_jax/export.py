"""Writes a trained network as one portable file, or as a folder of weights.

    rattn export --workdir=runs/mine --out=mine.stablehlo --masks
    rattn export --workdir=runs/mine --out=mine --format=safetensors --evaluate

The file takes images uint8 [B, S, S, 3] for any B, cropped and resized as in evaluation. It returns
logits float32 [B, classes] and, with --masks, the modules' masks. It is compared with the network.

`stablehlo` is the format of `jax.export`, for CPU, CUDA and TPU; FILE.json has the class names. A
newer JAX reads such files for six months: keep the run, and export again.

    network = jax.export.deserialize(bytearray(open("FILE", "rb").read()))
    network.call(images)["logits"]             # masks: ["stage1/module1"], ...
    network.fun_name                           # "rattn_jax with jax 0.10.2"

`onnx` has the input "images", outputs of the same names and, as metadata, the class names; it needs
`pip install -e '.[onnx]'`.

`safetensors` is a folder to hand on: weights, config, normalization, checksums, and a card, which
has the test error if --evaluate measures it. `rattn_jax.load`, `init_from` and --workdir take it.
"""

import argparse
from collections.abc import Sequence

from etils import epath

from rattn_jax.cli import Parser, add_workdir, errors_on_one_line, working
from rattn_jax.config.paths import path_of
from rattn_jax.inference.network import Classifier, load
from rattn_jax.interop.card import error_text
from rattn_jax.interop.export import export_network
from rattn_jax.interop.safetensors import DTYPES, export_folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes what the command line asks for."""
    add_workdir(parser := Parser("rattn export", __doc__))
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="the file, or with --format=safetensors folder, to write",
    )
    formats = ["stablehlo", "onnx", "safetensors"]
    parser.add_argument("--format", choices=formats, default=formats[0], help="(stablehlo)")
    parser.add_argument("--masks", action="store_true", help="the modules' masks as outputs, too")
    folder = parser.add_argument_group("safetensors")
    folder.add_argument("--dtype", choices=DTYPES, help="what parameters are stored in (float32)")
    folder.add_argument("--evaluate", action="store_true", help="the card has the test error")
    folder.add_argument("--data-dir", help="where the dataset is now, if it has moved")
    folder.add_argument("--note", help="a sentence on the data, for the card")
    options = parser.parse(arguments)
    if options.format == "safetensors" and options.masks:
        parser.error("--masks is for the other formats: safetensors holds weights alone")
    of_folder = options.dtype or options.evaluate or options.data_dir or options.note
    if options.format != "safetensors" and of_folder:
        parser.error("--dtype, --evaluate, --data-dir and --note need --format=safetensors")
    if options.data_dir and not options.evaluate:
        parser.error("--data-dir is of the data that --evaluate reads: leave it out, or add that")
    with errors_on_one_line(parser.prog), working("reading the run") as console:
        path = path_of(options.out)
        network = load(options.workdir, options.step)
        if options.format == "safetensors":
            console.enter("evaluating test" if options.evaluate else "writing the folder")
            _export_folder(network, path, options)
            return
        console.enter(f"exporting and comparing {options.format}")
        found = export_network(network, path, kind=options.format, masks=options.masks)
        size, megabytes = network.image_size, path.stat().length / 1e6
        print(f"{path}: {megabytes:,.1f} MB, images uint8 [B, {size}, {size}, 3], {found}")


def _export_folder(network: Classifier, path: epath.Path, options: argparse.Namespace) -> None:
    evaluation = export_folder(
        network.with_data_dir(options.data_dir),
        path,
        dtype=options.dtype or "float32",
        evaluate=options.evaluate,
        note=options.note,
    )
    megabytes = sum(file.stat().length for file in path.iterdir()) / 1e6
    print(f"{path}: {megabytes:,.1f} MB, test error {error_text(evaluation)}")


if __name__ == "__main__":
    main()
