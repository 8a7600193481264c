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

    # Fine-tuning: a run whose newest checkpoint this one starts from; parts of the network, such as
    # ("stem", "stage1"), that stay as they are; and whether batch norm stays with the running
    # averages of that run.
    config.init_from = config_dict.placeholder(str)
    config.freeze = config_dict.placeholder(tuple)
    config.freeze_batch_norm = False

    config.batch_size = 64  # images an update, over all devices (paper)
    config.num_train_steps = 160_000  # updates (paper); 0 only evaluates the newest checkpoint
    config.log_every_steps = 100
    config.eval_every_steps = 1_000
    config.checkpoint_every_steps = 1_000
    config.keep_checkpoints = 2  # newest ones; older ones are removed
    config.report = True  # draws report.html in the workdir after each evaluation

    config.parallel = "shard_map"  # or "pmap", with the same numbers
    config.sync_batch_norm = False  # statistics over all devices; False: of each one's images
    config.compilation_cache_dir = config_dict.placeholder(str)  # None: in the workdir
    config.process_timeout_seconds = 60  # after which one that died or hangs ends the others
    config.preemption_grace_seconds = 25  # to leave in order after SIGTERM
    config.on_save_error = "stop"  # when a checkpoint cannot be written; or "continue"
    config.on_nonfinite = "stop"  # when an update gives NaN or infinity; or "skip" it
    config.profile_steps = config_dict.placeholder(tuple)  # (a, b) traces the updates from a to b
    config.steps_per_call = 0  # updates a dispatch; 0: 1 on CPU, 100 on accelerators

    config.dataset = ConfigDict()
    # "digits", "cifar10", "cifar100"; any image classification set that TFDS has prepared in
    # data_dir, such as "imagenet2012"; or "folder:PATH", a folder with a folder for each class.
    config.dataset.name = "cifar10"
    config.dataset.train_split = "train"  # of a TFDS set
    config.dataset.test_split = config_dict.placeholder(str)  # None: "test", or else "validation"
    config.dataset.test_fraction = 0.1  # of each class, held out where there is nothing to test on
    config.dataset.image_size = config_dict.placeholder(int)  # pixels; None: the dataset's own
    config.dataset.eval_image_size = config_dict.placeholder(int)  # None: image_size
    config.dataset.eval_crop_fraction = 1.0  # of the shorter side: what evaluation sees
    config.dataset.test_exclude_file = config_dict.placeholder(str)  # file: what not to test on
    config.dataset.max_resident_bytes = 2**30  # decoded; more than that streams from the host
    config.dataset.num_threads = 0  # that decode images; 0: one for each core
    config.dataset.max_bad_examples = 10  # damaged training images to skip before giving up
    config.dataset.label_noise = ConfigDict()
    config.dataset.label_noise.clean_ratio = 1.0  # of the labels; the others are wrong (table 5)
    config.dataset.label_noise.matrix = config_dict.placeholder(str)  # file: instead of clean_ratio
    # Training examples, as many of each class, that are evaluated instead of the test split, which
    # then is used once, at the end.
    config.validation_examples = 0

    # "mean_image": minus the training images' mean (paper, CIFAR); "imagenet": scaled to [0, 1],
    # minus ImageNet's mean colour, over its standard deviation (paper, ImageNet). "zero_one":
    # scaled to [0, 1], as in a PyTorch port whose weights can be imported.
    config.normalization = "mean_image"

    config.augmentation = ConfigDict()
    # Least and largest share of the area that a crop of random scale and aspect ratio takes.
    config.augmentation.resized_crop_area = config_dict.placeholder(tuple)
    config.augmentation.crop_padding = 4  # pixels of zeros on each side before cropping (paper)
    config.augmentation.flip = True  # left-right, half of the images (paper)
    config.augmentation.trivial_augment = False  # one operation of 14, of random strength
    config.augmentation.lighting = 0.0  # standard deviation of AlexNet's colour augmentation

    # Beyond the paper; 0 is off.
    config.regularization = ConfigDict()
    config.regularization.cutout = 0  # side of the square that is blanked, in pixels
    config.regularization.erasing = 0.0  # probability of blanking a random rectangle
    config.regularization.mixup = 0.0  # alpha: two images and their labels become one
    config.regularization.cutmix = 0.0  # alpha: a rectangle of another image, and of its label
    config.label_smoothing = 0.0  # share of the target that is spread over all classes

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
    config.model.wiring = config_dict.placeholder(str)  # "paper", or a PyTorch "port"'s
    config.model.dtype = config_dict.placeholder(str)  # of the computation, such as "bfloat16"
    config.model.remat = config_dict.placeholder(bool)  # less memory for more computation
    config.model.scan_modules = config_dict.placeholder(bool)  # quicker compilation of deep nets

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"  # with Nesterov momentum (paper); training/optimizer.py has more
    config.optimizer.schedule = "step"  # (paper), "cosine", "linear" or "one_cycle"
    config.optimizer.warmup_steps = 0  # updates in which the learning rate rises
    config.optimizer.learning_rate = 0.1  # the highest (paper)
    config.optimizer.boundaries = (64_000, 96_000)  # "step": updates after which it falls (paper)
    config.optimizer.step_decay = 0.1  # "step": factor at each boundary (paper)
    config.optimizer.momentum = 0.9  # (paper)
    config.optimizer.weight_decay = 1e-4  # (paper)
    config.optimizer.decay_norm_and_bias = True  # False: decays kernels only
    config.optimizer.clip_norm = 0.0  # largest norm of the gradients; 0 does not clip
    config.accumulate_steps = 1  # parts in which a device computes its share, to save memory
    config.ema_decay = 0.0  # of averages of parameters and statistics, to evaluate; 0: none

    return config
