"""Residual Attention Networks (Wang et al., CVPR 2017) in JAX and Flax.

    rattn train --config=digits --workdir=runs/digits

`rattn COMMAND --help` explains a command, with an example.
"""

import importlib
import sys
from collections.abc import Sequence

from rattn_jax import __version__
from rattn_jax.cli import Parser, errors_on_one_line, set_up_process
from rattn_jax.config.load import SHIPPED, did_you_mean, shipped_configs
from rattn_jax.errors import UsageError

# Module and function of each command; the module is imported when the command is used.
COMMANDS = {
    "train": ("train", "main", "train a network, or resume a run"),
    "evaluate": ("train", "evaluate", "evaluate the latest checkpoint of a run"),
    "predict": ("predict", "main", "predict the classes of images"),
    "explain": ("explain", "main", "draw masks, and measure how much they matter"),
    "serve": ("serve", "main", "answer over HTTP, with a page to drop an image on"),
    "export": ("export", "main", "write a trained network as StableHLO or ONNX"),
    "describe": ("describe", "main", "print sizes and costs of the networks"),
    "compare": ("compare", "main", "compare runs on one page"),
    "import": ("import_torch", "main", "convert weights of a PyTorch port"),
    "prepare": ("prepare", "main", "write images in the format of tensorflow-datasets"),
    "selftest": ("train", "selftest", "test everything that a long run needs"),
    "configs": ("__main__", "configs", "list the configs, or print one"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = given[0] if given else "--help"
    if command in COMMANDS:
        if arguments is None:
            set_up_process()
        module_name, function, _ = COMMANDS[command]
        module = importlib.import_module(f"rattn_jax.{module_name}")
        if arguments is None and module_name == "train":
            module.use_huge_pages()
        getattr(module, function)(given[1:])
        return
    lines = "\n".join(f"  {name:10}{text}" for name, (_, _, text) in COMMANDS.items())
    parser = Parser("rattn", f"{__doc__}\ncommands:\n{lines}")
    parser.usage = "rattn COMMAND ..."
    parser.add_argument("--version", action="version", version=f"rattn {__version__}")
    if not command.startswith("-"):
        known = did_you_mean(command, COMMANDS) or f"choose one of {', '.join(COMMANDS)}"
        parser.error(f"unknown command {command!r}: {known.strip()}")
    parser.parse([command])


def configs(arguments: Sequence[str] | None = None) -> None:
    """Lists the configs of the package, or prints one of them.

        rattn configs              # names and descriptions
        rattn configs default      # all keys, with their meaning and unit

    Your own config file starts from one of them: `from rattn_jax.configs import default`.
    """
    parser = Parser("rattn configs", configs.__doc__)
    parser.add_argument("name", nargs="?", help="the config to print")
    options = parser.parse(arguments)
    found = shipped_configs()
    with errors_on_one_line(parser.prog):
        if options.name is None:
            width = max(map(len, found))
            print("\n".join(f"{name:{width}}  {text}" for name, text in found.items()))
        elif options.name in found:
            print((SHIPPED / f"{options.name}.py").read_text(), end="")
        else:
            hint = did_you_mean(options.name, found)
            raise UsageError(
                f"no config is called {options.name!r}: {hint}`rattn configs` lists them"
            )


if __name__ == "__main__":
    main()
