"""Every key of a run, with the paper's recipe for CIFAR (Wang et al., 2017, section 4.1).

The other files in this folder start from this one and say what differs. Any key can be set on
the command line, too: `--config.batch_size=256`.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """The paper's recipe on CIFAR-10, with Attention-56."""
    config = ConfigDict()

    config.seed = 0  # of initial parameters, data order and augmentation
    config.data_dir = config_dict.placeholder(str)  # of TFDS; None: ~/tensorflow_datasets

    config.batch_size = 64  # images an update, over all devices (paper)
    config.num_train_steps = 160_000  # updates (paper); 0 only evaluates the newest checkpoint
    config.log_every_steps = 100
    config.eval_every_steps = 1_000
    config.checkpoint_every_steps = 1_000
    config.keep_checkpoints = 2  # newest ones; older ones are removed

    config.parallel = "shard_map"  # or "pmap", with the same numbers
    config.sync_batch_norm = False  # statistics over all devices; False: of each one's images
    config.steps_per_call = 0  # updates a dispatch; 0: 1 on CPU, 100 on accelerators

    config.dataset = ConfigDict()
    config.dataset.name = "cifar10"  # or "cifar100", "digits"

    config.augmentation = ConfigDict()
    config.augmentation.crop_padding = 4  # pixels of zeros on each side before cropping (paper)
    config.augmentation.flip = True  # left-right, half of the images (paper)

    # The network and, where they are set, keywords that replace its own values.
    config.model = ConfigDict()
    config.model.name = "attention56_cifar"
    config.model.p = config_dict.placeholder(int)
    config.model.t = config_dict.placeholder(int)
    config.model.r = config_dict.placeholder(int)
    config.model.modules_per_stage = config_dict.placeholder(tuple)
    config.model.widths = config_dict.placeholder(tuple)
    config.model.mask_poolings = config_dict.placeholder(tuple)
    config.model.mask_decoder_units = config_dict.placeholder(int)
    config.model.mask_activation = config_dict.placeholder(str)  # "mixed", "channel", "spatial"
    config.model.mask_structure = config_dict.placeholder(str)  # "encoder_decoder" or "local"
    config.model.attention_residual = config_dict.placeholder(bool)
    config.model.unit = config_dict.placeholder(str)  # "preactivation", "resnext", "inception"
    config.model.dtype = config_dict.placeholder(str)  # of the computation, such as "bfloat16"
    config.model.remat = config_dict.placeholder(bool)  # less memory for more computation
    config.model.scan_modules = config_dict.placeholder(bool)  # quicker compilation of deep nets

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 0.1  # (paper)
    config.optimizer.boundaries = (64_000, 96_000)  # updates after which it falls (paper)
    config.optimizer.decay = 0.1  # factor at each boundary (paper)
    config.optimizer.momentum = 0.9  # Nesterov's (paper)
    config.optimizer.weight_decay = 1e-4  # on all parameters (paper)

    return config
