"""Writes a trained network as one portable file.

    python -m rattn_jax.export --workdir=RUN --out=FILE [--format=stablehlo|onnx] [--masks]

The file takes images uint8 [B, S, S, 3], of the size of the run's evaluation and as it crops them,
for any B, and gives logits float32 [B, classes]; with --masks, the masks of the attention modules
as well. It is read back and compared with the network before it gets its name.

`stablehlo` is the format of `jax.export`, for CPU, CUDA and TPU:

    network = jax.export.deserialize(bytearray(open("FILE", "rb").read()))
    network.call(images)["logits"]             # with --masks: ["stage1/module1"], ..., too

`onnx` has the input "images" and outputs of the same names; it needs the libraries of
`pip install -e '.[onnx]'`.
"""

import argparse

from etils import epath

from rattn_jax.cli import add_workdir, errors_on_one_line
from rattn_jax.inference.network import load
from rattn_jax.interop.export import export_network


def main(arguments: list[str] | None = None) -> None:
    """Writes what the command line asks for."""
    parser = argparse.ArgumentParser(prog="rattn_jax.export", description=__doc__.split("\n")[0])
    add_workdir(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--format", choices=["stablehlo", "onnx"], default="stablehlo")
    parser.add_argument("--masks", action="store_true", help="the modules' masks as outputs, too")
    options = parser.parse_args(arguments)
    path = epath.Path(options.out)
    with errors_on_one_line("export"):
        network = load(options.workdir)
        difference = export_network(network, path, kind=options.format, masks=options.masks)
    size = network.image_size
    print(
        f"{path}: {path.stat().length / 1e6:,.1f} MB, images uint8 [B, {size}, {size}, 3], differs "
        f"from the network by {difference:.1g} of the largest output"
    )


if __name__ == "__main__":
    main()
