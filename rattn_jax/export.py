"""Writes a trained network as one portable file.

    rattn export --workdir=runs/mine --out=mine.stablehlo --masks

The file takes images uint8 [B, S, S, 3] for any B, cropped and resized as in the evaluation of the
run. It returns logits float32 [B, classes] and, with --masks, the masks of the attention modules.
It is read back and compared with the network before it gets its final name.

`stablehlo` is the format of `jax.export`, for CPU, CUDA and TPU:

    network = jax.export.deserialize(bytearray(open("FILE", "rb").read()))
    network.call(images)["logits"]             # masks: ["stage1/module1"], ...

`onnx` has the input "images" and outputs of the same names; it needs the libraries of
`pip install -e '.[onnx]'`.
"""

from collections.abc import Sequence

from etils import epath

from rattn_jax.cli import Parser, add_workdir, errors_on_one_line, working
from rattn_jax.inference.network import load
from rattn_jax.interop.export import export_network


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes what the command line asks for."""
    parser = Parser("rattn export", __doc__)
    add_workdir(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--format", choices=["stablehlo", "onnx"], default="stablehlo")
    parser.add_argument("--masks", action="store_true", help="the modules' masks as outputs, too")
    options = parser.parse(arguments)
    path = epath.Path(options.out)
    with errors_on_one_line(parser.prog):
        with working("reading the run"):
            network = load(options.workdir)
        with working(f"exporting and comparing {options.format}"):
            difference = export_network(network, path, kind=options.format, masks=options.masks)
        size = network.image_size
        print(
            f"{path}: {path.stat().length / 1e6:,.1f} MB, images uint8 [B, {size}, {size}, 3], "
            f"differs from the network by {difference:.1g} of the largest output"
        )


if __name__ == "__main__":
    main()
