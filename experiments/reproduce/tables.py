"""The paper's tables and figure 4: the networks that they compare, and their numbers."""

from typing import NamedTuple


class Variant(NamedTuple):
    """A network and recipe to train; tables that share a variant share its runs.

    Attributes:
        name: its name, which is also the name of its folder.
        config: name of its config.
        flags: flags of main.py with which it differs from that config.
    """

    name: str
    config: str
    flags: tuple[str, ...] = ()


class Row(NamedTuple):
    """A number of a table.

    Attributes:
        group: rows of a group are compared with each other.
        label: the paper's name of the variant.
        variant: what is trained.
        measure: a key of `MEASURES`.
        paper: the paper's number; None if it is not printed.
    """

    group: str
    label: str
    variant: Variant
    measure: str
    paper: float | None


class Table(NamedTuple):
    """A table of the paper.

    Attributes:
        title: its subject.
        rows: its numbers.
        notes: remarks to print below it.
        baseline: a group over which the rise of errors is compared as well; "" if none is.
    """

    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    baseline: str = ""

    def variants(self) -> list[Variant]:
        """Its variants, each once."""
        return list(dict.fromkeys(row.variant for row in self.rows))


# The name of each measure, and the factor from the recorded value to the table's unit.
MEASURES = {
    "error_top1": ("top-1 error, %", 100.0),
    "error_top5": ("top-5 error, %", 100.0),
    "response1": ("response of stage 1", 1.0),
    "response2": ("response of stage 2 to stage 1", 1.0),
    "response3": ("response of stage 3 to stage 1", 1.0),
}


def _variant(config: str, suffix: str = "", *flags: str) -> Variant:
    return Variant(config + suffix, config, tuple(f"--config.{flag}" for flag in flags))


def _naive(config: str) -> Variant:
    return _variant(config, "_naive", "model.attention_residual=False")


def _errors(group: str, label: str, config: str, top1: float, top5: float) -> tuple[Row, Row]:
    variant = _variant(config)
    return (
        Row(f"{group}, top 1", label, variant, "error_top1", top1),
        Row(f"{group}, top 5", label, variant, "error_top5", top5),
    )


_ATTENTION56 = _variant("cifar10_attention56")
_NETWORKS = {
    "resnet164": "ResNet-164",
    "resnet1001": "ResNet-1001",
    "wrn16_8": "WRN-16-8",
    "wrn28_10": "WRN-28-10",
    "attention92": "Attention-92",
    "attention236": "Attention-236",
    "attention452": "Attention-452",
}

TABLE1 = Table(
    "Mask activations, Attention-56 on CIFAR-10",
    tuple(
        Row("", label, variant, "error_top1", paper)
        for label, variant, paper in (
            ("mixed", _ATTENTION56, 5.52),
            (
                "channel",
                _variant("cifar10_attention56", "_channel", "model.mask_activation=channel"),
                6.24,
            ),
            (
                "spatial",
                _variant("cifar10_attention56", "_spatial", "model.mask_activation=spatial"),
                6.33,
            ),
        )
    ),
)

TABLE3 = Table(
    "Attention residual learning (ARL) and naive attention learning (NAL) on CIFAR-10",
    tuple(
        Row(f"Attention-{depth}", label, variant, "error_top1", paper)
        for depth, arl, nal in (
            (56, 5.52, 5.89),
            (92, 4.99, 5.35),
            (128, 4.44, 5.57),
            (164, 4.31, 7.18),
        )
        for label, variant, paper in (
            ("ARL", _variant(f"cifar10_attention{depth}"), arl),
            ("NAL", _naive(f"cifar10_attention{depth}"), nal),
        )
    ),
)

TABLE4 = Table(
    "Mask structures, Attention-56 on CIFAR-10",
    (
        Row(
            "",
            "local convolutions",
            _variant("cifar10_attention56", "_local", "model.mask_structure=local"),
            "error_top1",
            6.48,
        ),
        Row("", "encoder and decoder", _ATTENTION56, "error_top1", 5.52),
    ),
    ("The local masks are as narrow inside as makes their cost equal: the paper gives no widths.",),
)

TABLE5 = Table(
    "Wrong training labels, CIFAR-10",
    tuple(
        Row(f"{noise} % noise", label, _variant(f"cifar10_{prefix}{name}"), "error_top1", paper)
        for noise, prefix, resnet, attention in (
            (0, "", 5.46, 4.99),
            (10, "noise10_", 5.93, 5.15),
            (30, "noise30_", 6.61, 5.79),
            (50, "noise50_", 8.35, 7.27),
            (70, "noise70_", 17.21, 15.75),
        )
        for label, name, paper in (
            ("ResNet-164", "resnet164", resnet),
            ("Attention-92", "attention92", attention),
        )
    ),
    (
        "The wrong labels are drawn with the run's seed.",
        "The rows without noise are those of table 6, for comparison.",
    ),
    baseline="0 % noise",
)

TABLE6 = Table(
    "CIFAR-10 and CIFAR-100, beside the baselines",
    tuple(
        Row(
            f"CIFAR-{classes}",
            _NETWORKS[name],
            _variant(f"cifar{classes}_{name}"),
            "error_top1",
            paper,
        )
        for classes, errors in (
            (10, (5.46, 4.64, 4.81, 4.17, 4.99, 4.14, 3.90)),
            (100, (24.33, 22.71, 22.07, 20.50, 21.71, 21.16, 20.45)),
        )
        for name, paper in zip(_NETWORKS, errors, strict=True)
    ),
    ("Baselines are trained with the recipe of the attention networks.",),
)

TABLE7 = Table(
    "ImageNet, one crop",
    (
        *_errors("224", "ResNet-152", "imagenet_resnet152", 22.16, 6.16),
        *_errors("224", "Attention-56", "imagenet_attention56", 21.76, 5.9),
        *_errors("224", "ResNeXt-101", "imagenet_resnext101", 21.2, 5.6),
        *_errors("224", "AttentionNeXt-56", "imagenet_attentionnext56", 21.2, 5.6),
        *_errors("299", "Inception-ResNet-v1", "imagenet_inception_resnet_v1", 21.3, 5.5),
        *_errors("299", "AttentionInception-56", "imagenet_attentioninception56", 20.36, 5.29),
        *_errors("320 and 299", "ResNet-200", "imagenet_resnet200", 20.1, 4.8),
        *_errors("320 and 299", "Inception-ResNet-v2", "imagenet_inception_resnet_v2", 19.9, 4.9),
        *_errors("320 and 299", "Attention-92", "imagenet_attention92", 19.5, 4.8),
    ),
    (
        "Groups are those that the paper compares, by the pixels of test images.",
        "The paper gives neither batch size nor weight decay: 256 and 0.0001 are choices.",
        "The paper leaves out the validation images on ILSVRC's blacklist: give it with "
        "--config.dataset.test_exclude_file=FILE.",
    ),
)

FIGURE4 = Table(
    "Mean absolute response of the stages, relative to the first, CIFAR-10",
    tuple(
        Row(f"stage {stage}", label, variant, f"response{stage}", None)
        for stage in (1, 2, 3)
        for label, variant in (
            ("Attention-164, ARL", _variant("cifar10_attention164")),
            ("Attention-164, NAL", _naive("cifar10_attention164")),
            ("ResNet-164", _variant("cifar10_resnet164")),
        )
    ),
    (
        "The paper draws the numbers and does not print them: under NAL the response vanishes in "
        "stage 2.",
        "Measured on the test images, the first 1,000 of them at most. Stage 1's is absolute, and "
        "the others' are relative to it; means over seeds are geometric.",
    ),
)

TABLES = {
    "table1": TABLE1,
    "table3": TABLE3,
    "table4": TABLE4,
    "table5": TABLE5,
    "table6": TABLE6,
    "table7": TABLE7,
    "figure4": FIGURE4,
}
