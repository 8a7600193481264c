"""Writes a trained network as one portable file.

    rattn export --workdir=runs/mine --out=mine.stablehlo --masks

The file takes images uint8 [B, S, S, 3], of the size of the run's evaluation and as it crops them,
for any B, and gives logits float32 [B, classes]; with --masks, the masks of the attention modules
as well. It is read back and compared with the network before it gets its name.

`stablehlo` is the format of `jax.export`, for CPU, CUDA and TPU:

    network = jax.export.deserialize(bytearray(open("FILE", "rb").read()))
    network.call(images)["logits"]             # with --masks: ["stage1/module1"], ..., too

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
