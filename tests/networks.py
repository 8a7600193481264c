"""Sizes of all networks, which `test_networks.py` holds them to."""

# Learnable parameters: for images of 32x32 with 10 and 100 classes, ...
CIFAR_PARAMETERS = {
    "attention56_cifar": (1_030_362, 1_053_492),
    "attention92_cifar": (1_841_242, 1_864_372),
    "attention128_cifar": (2_652_122, 2_675_252),
    "attention164_cifar": (3_463_002, 3_486_132),
    "attention236_cifar": (5_084_762, 5_107_892),
    "attention452_cifar": (10_181_210, 10_204_340),
    "attention92_port_cifar": (12_170_730, 12_262_980),  # the port's, without what it never uses
}
CIFAR_PARAMETERS |= {
    "resnet164_cifar": (1_703_258, 1_726_388),
    "resnet1001_cifar": (10_327_706, 10_350_836),
    "wrn16_8_cifar": (10_961_370, 11_007_540),
    "wrn28_10_cifar": (36_479_194, 36_536_884),
}
# ... and of the ImageNet networks with 1,000: 56 and 92 as in the authors' own files.
IMAGENET_PARAMETERS = {
    "attention56": 31_810_728,
    "attention92": 52_466_344,
    "attention128": 65_294_504,
    "attention164": 78_122_664,
    "attention200": 90_950_824,
    "attention236": 103_778_984,
    "attentionnext56": 31_318_824,
    "attentionnext92": 52_102_952,
    "attentioninception56": 32_406_032,  # ours; the paper says 31.9 M
    "resnet152": 60_192_808,  # torchvision's
    "resnet200": 64_666_280,  # the paper says 64.7 M
    "resnext101": 44_177_704,  # torchvision's and the ResNeXt authors' 32x4d
    "inception_resnet_v1": 22_756_328,  # ours, from Szegedy et al.
    "inception_resnet_v2": 55_843_464,  # timm's
}

# Convolutions and matrix products, for one image.
CIFAR_MULTIPLY_ADDS = {
    "attention56_cifar": 122_825_216,
    "attention92_cifar": 211_913_216,
    "attention128_cifar": 301_001_216,
    "attention164_cifar": 390_089_216,
    "attention236_cifar": 568_265_216,
    "attention452_cifar": 984_386_048,
    "resnet164_cifar": 247_646_720,
    "resnet1001_cifar": 1_490_995_712,
    "wrn16_8_cifar": 1_548_145_664,
    "wrn28_10_cifar": 5_243_328_768,
}
# From the authors' files: all and those in masks at 224, all at 320.
IMAGENET_MULTIPLY_ADDS = {
    "attention56": (6_270_836_736, 1_744_920_576, 12_795_494_400),
    "attention92": (10_533_789_696, 3_387_482_112, 21_495_398_400),
    "attentionnext56": (6_419_106_816, 1_748_683_776, 13_098_086_400),
    "attentionnext92": (10_704_337_920, 3_394_255_872, 21_843_456_000),
}
CONVOLUTIONS = {"56": (110, 51), "92": (179, 84)}  # all and those in masks

# Sides of the images that each network is traced for.
SIZES = {name: {32} for name in CIFAR_PARAMETERS} | {name: {224} for name in IMAGENET_PARAMETERS}
for name in IMAGENET_MULTIPLY_ADDS:
    SIZES[name].add(320)
SIZES["resnet200"].add(320)
SIZES["attentioninception56"].add(299)
SIZES["inception_resnet_v1"] = SIZES["inception_resnet_v2"] = {299}
