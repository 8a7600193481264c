"""Converts weights of a PyTorch port of the networks to the folder of a run.

    rattn import model_92_sgd.pkl --workdir=runs/port --class-names=names.txt

The file is what tengshaofeng/ResidualAttentionNetwork-pytorch saves for its networks
ResidualAttentionModel_56, ResidualAttentionModel_92 and ResidualAttentionModel_92_32input_update:
a state_dict. The network is recognized by its weights. The folder can be used by `rattn_jax.load`,
`predict`, `explain` and `export` like the folder of any run; to train from it, use another folder
and `config.init_from`. Needs `pip install -e '.[torch]'`.
"""

import textwrap
from collections.abc import Sequence

import jax

from rattn_jax.cli import Parser, errors_on_one_line
from rattn_jax.config.paths import path_of
from rattn_jax.interop.torch_files import describe_dropped, read_class_names, read_state, write_run
from rattn_jax.interop.torch_port import convert, recognize


def main(arguments: Sequence[str] | None = None) -> None:
    """Imports the file that the command line names."""
    parser = Parser("rattn import", __doc__)
    parser.add_argument("file", metavar="FILE", help="a state_dict, as torch.save writes it")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="the folder to make")
    parser.add_argument(
        "--class-names",
        metavar="FILE",
        help="one name per line (those of CIFAR-10 if there are ten classes, or else numbers)",
    )
    options = parser.parse(arguments)
    with errors_on_one_line(parser.prog):
        state = read_state(path_of(options.file))
        network = recognize(state)
        class_names = read_class_names(
            options.class_names and path_of(options.class_names), network.num_classes
        )
        variables, dropped = convert(state, network.create_model())
        folder = write_run(options.workdir, network, variables, class_names)
        count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        print(
            f"{options.file}: {network.name}, {count:,} parameters, {len(class_names)} classes "
            f"({textwrap.shorten(', '.join(class_names), 60)})\n"
            f"{describe_dropped(state, dropped)}\n"
            f"in {folder}, as {network.model_name} with images of {network.image_size} pixels"
        )


if __name__ == "__main__":
    main()
