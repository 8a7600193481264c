"""Every key of a run, with the paper's recipe for CIFAR (Wang et al., 2017, section 4.1).

The other configs start from this one and change some keys. Any key can also be set on the command
line: `--config.batch_size=256`.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """The paper's recipe on CIFAR-10, with Attention-56."""
    config = ConfigDict()

    config.seed = 0  # for initial parameters, data order and augmentation
    # Folder of TFDS; None: $TFDS_DATA_DIR, or ~/tensorflow_datasets.
    config.data_dir = config_dict.placeholder(str)

    # Fine-tuning: the run (its workdir), pretrained network or hf:// name to start from.
    config.init_from = config_dict.placeholder(str)
    # Parts of that network that are not trained, such as ("stem", "stage1").
    config.freeze = config_dict.placeholder(tuple)
    config.freeze_batch_norm = False  # whether batch norm keeps the running averages of that run

    config.batch_size = 64  # images per update, over all devices (paper)
    config.num_train_steps = 160_000  # updates (paper); 0 only evaluates the latest checkpoint
    # In place of num_train_steps; an epoch has as many updates as whole batches fit into it.
    config.num_epochs = config_dict.placeholder(float)
    config.log_every_steps = 100
    config.eval_every_steps = 1_000
    config.eval_every_epochs = config_dict.placeholder(float)  # in place of eval_every_steps
    config.checkpoint_every_steps = 1_000
    config.keep_checkpoints = 2  # number of latest checkpoints to keep
    # The checkpoint of the best evaluation is kept in addition, for --step=best.
    config.keep_best = ConfigDict()
    # "error_top1", "error_top5" or "loss"; with loss="sigmoid" also "mean_average_precision",
    # "f1_macro" and "f1_micro".
    config.keep_best.metric = config_dict.placeholder(str)
    config.keep_best.mode = "min"  # the lowest value is the best; "max" for those of "sigmoid"
    # Split that chooses; None: "validation", see validation_examples. "test" must be asked for:
    # the test error of a checkpoint that was chosen by it is too low.
    config.keep_best.split = config_dict.placeholder(str)
    # Stop after this many evaluations in a row that were not better; 0: never.
    config.keep_best.patience = 0
    config.report = True  # whether to write report.html after each evaluation
    config.loggers = ()  # "wandb", "mlflow": where metrics go besides metrics.jsonl and TensorBoard

    config.parallel = "shard_map"  # or "pmap", with the same results
    config.sync_batch_norm = False  # over all devices; False: each device by itself
    config.compilation_cache_dir = config_dict.placeholder(str)  # None: in the workdir
    # Until a dead process ends the job; for one that hangs see docs/accelerators.md.
    config.process_timeout_seconds = 60
    config.preemption_grace_seconds = 25  # from SIGTERM until the process ends
    # What to do if a checkpoint cannot be written: "stop", or, with a single process, "continue".
    config.on_save_error = "stop"
    config.on_nonfinite = "stop"  # if an update gives NaN or infinity; or "skip" it
    config.profile_steps = config_dict.placeholder(tuple)  # (a, b) traces the updates from a to b
    # Updates per dispatch; 0: 100 on accelerators if the dataset is kept there, otherwise 1.
    config.steps_per_call = 0

    config.dataset = ConfigDict()
    # "digits", "cifar10", "cifar100"; any image classification dataset that TFDS has prepared
    # in data_dir, such as "imagenet2012"; or one's own: "folder:PATH", a folder with a folder for
    # each class; "table:PATH", images and classes in CSV, JSON lines, parquet or Arrow;
    # "shards:PATH", tar files of WebDataset.
    config.dataset.name = "cifar10"
    config.dataset.train_split = "train"  # of a TFDS set
    config.dataset.test_split = config_dict.placeholder(str)  # None: "test" or "validation"
    config.dataset.test_fraction = 0.1  # of each class, if there is no test split
    # How held-out images of one's own are chosen. "path": by a hash of class and file of each, so
    # that an image that is added moves no other. As in earlier runs, "name": by a hash of the name
    # of the file, so that those of one name are held out together; "position": at random.
    config.dataset.hold_out_by = "path"
    # Columns of a table, and names in the JSON of shards; None: found by usual names.
    config.dataset.image_column = config_dict.placeholder(str)
    config.dataset.label_column = config_dict.placeholder(str)
    config.dataset.split_column = config_dict.placeholder(str)
    # Between the classes of an image in a table or shard, such as "|", where it may have several.
    config.dataset.label_separator = config_dict.placeholder(str)
    # Names of all classes in the order of the outputs, such as ("cat", "dog"); of classes 0, 1, ...
    # their names. None: the lines of a file classes.txt beside one's own images, if there is one,
    # and otherwise the order of the dataset; (): that order in any case.
    config.dataset.classes = config_dict.placeholder(tuple)
    # "uniform": each training image once an epoch. "balanced": as many of each class, so that those
    # of rare classes come more often; an epoch is then a number of updates.
    config.dataset.sampling = "uniform"
    config.dataset.image_size = config_dict.placeholder(int)  # pixels; None: that of the dataset
    config.dataset.eval_image_size = config_dict.placeholder(int)  # None: image_size
    config.dataset.eval_crop_fraction = 1.0  # size of the center crop, of the shorter side
    # Scale as Pillow does, whatever the file, streamed training images nearly so; False: as in runs
    # started before this key existed.
    config.dataset.exact_pixels = True
    # Random crops (augmentation.resized_crop_area) are of the image file, which is read each time;
    # False: of its middle at the network's size, which may stay on the device: fast, but blurred.
    config.dataset.crop_files = True
    # Of a folder: every known format, and folders below those of the classes; False: only .jpg,
    # .jpeg, .png and .webp directly in those, as in runs started before this key existed.
    config.dataset.all_images = True
    # Test images that do not count, one a line: names of files, with class or folder (cat/1.jpg)
    # where several have the same, or ILSVRC's numbers.
    config.dataset.test_exclude_file = config_dict.placeholder(str)
    config.dataset.max_resident_bytes = 2**30  # larger datasets, decoded, are streamed
    config.dataset.num_threads = 0  # that decode images; 0: one per core
    config.dataset.max_bad_examples = 10  # damaged training images that do not end the run
    # The next good image takes the place of a damaged one; False: of data on the device, those are
    # left out, which changes the order of all, as in runs started before this key existed.
    config.dataset.replace_bad_examples = True
    config.dataset.label_noise = ConfigDict()
    config.dataset.label_noise.clean_ratio = 1.0  # fraction of correct labels (table 5)
    config.dataset.label_noise.matrix = config_dict.placeholder(str)  # file, instead of clean_ratio
    # Number of training examples, balanced over the classes, that are evaluated instead of the test
    # split, which is then evaluated once at the end.
    config.validation_examples = 0
    # Chooses other ones; None: the same in all runs, by the names of image files if there are any.
    config.validation_seed = config_dict.placeholder(int)

    # "mean_image": subtracts the mean training image (paper, CIFAR). "imagenet": scales to [0, 1],
    # subtracts ImageNet's mean color and divides by its standard deviation (paper, ImageNet).
    # "zero_one": scales to [0, 1], as for the weights of a PyTorch port.
    config.normalization = "mean_image"

    config.augmentation = ConfigDict()
    # Minimum and maximum fraction of the area of a crop of random scale and aspect ratio.
    config.augmentation.resized_crop_area = config_dict.placeholder(tuple)
    config.augmentation.crop_padding = 4  # pixels of zeros on each side before cropping (paper)
    config.augmentation.flip = True  # left-right, half of the images (paper)
    config.augmentation.trivial_augment = False  # one operation of 14, of random strength
    config.augmentation.lighting = 0.0  # standard deviation of AlexNet's color augmentation

    # Not in the paper; 0 is off.
    config.regularization = ConfigDict()
    config.regularization.cutout = 0  # side of the erased square, in pixels
    config.regularization.erasing = 0.0  # probability of erasing a random rectangle
    config.regularization.mixup = 0.0  # alpha
    config.regularization.cutmix = 0.0  # alpha
    config.regularization.mixing_off_last_steps = 0  # updates at the end without mixup and CutMix
    config.label_smoothing = 0.0  # fraction of the target that is spread over all classes
    # "softmax": each image has one class (paper). "sigmoid": it has any number of them, and each
    # class a probability of its own.
    config.loss = "softmax"
    # Factors of the classes' terms of the training loss: numbers in the order of the classes, or
    # "balanced": the number of training images / (number of classes that have any * images of the
    # class).
    config.class_weights = config_dict.placeholder(object)

    # The network, and keywords that replace its defaults if they are set.
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
    config.model.wiring = config_dict.placeholder(str)  # "paper" or "port"
    config.model.dtype = config_dict.placeholder(str)  # of the computation: "bfloat16", ...
    config.model.remat = config_dict.placeholder(bool)  # saves memory, costs time
    config.model.scan_modules = config_dict.placeholder(bool)  # deep networks compile faster

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"  # (paper); others: docs/changing-a-run.md
    config.optimizer.schedule = "step"  # (paper), "cosine", "linear" or "one_cycle"
    config.optimizer.warmup_steps = 0  # updates
    config.optimizer.warmup_epochs = config_dict.placeholder(float)  # in place of warmup_steps
    config.optimizer.learning_rate = 0.1  # maximum (paper)
    config.optimizer.boundaries = (64_000, 96_000)  # of "step", in updates (paper)
    config.optimizer.step_decay = 0.1  # of "step": factor at each boundary (paper)
    config.optimizer.momentum = 0.9  # (paper)
    config.optimizer.nesterov = True  # of "sgd" (paper: for CIFAR)
    config.optimizer.weight_decay = 1e-4  # (paper)
    config.optimizer.decay_norm_and_bias = True  # False: only kernels
    config.optimizer.clip_norm = 0.0  # maximum norm of the gradients; 0: no clipping
    config.accumulate_steps = 1  # microbatches per device and update; batch norm sees one at a time
    config.ema_decay = 0.0  # EMA of parameters and statistics, which is evaluated; 0: none

    return config
