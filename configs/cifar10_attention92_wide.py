"""A network of the ports' width, not the paper's, on CIFAR-10: 12 M parameters, modern recipe.

    python main.py --config=configs/cifar10_attention92_wide.py --workdir=runs/wide

Widths 128, 256 and 512 and three last units of 1,024 channels, as in tengshaofeng's and PistonY's
ports, whose best errors are 3.16 % and 2.86 % (chosen on the test split); the masks are wired as in
the paper. It shows how much of their lead over `cifar10_attention92_modern` is width. Not yet run
here.
"""

from ml_collections import ConfigDict

from rattn_jax.configs import cifar10_attention92_modern


def get_config() -> ConfigDict:
    """The run."""
    config = cifar10_attention92_modern.get_config()
    config.model.name = "attention92_port_cifar"
    config.model.wiring = "paper"
    config.model.mask_poolings = (2, 1, 1)
    return config
