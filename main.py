"""Trains and evaluates a network: `rattn train` in a checkout that is not installed.

    python main.py --config=configs/cifar100_attention452.py --workdir=/ckpt

Run again with the same --workdir, it resumes. Any key of the config can be set on
the command line: --config.batch_size=256. Exit status: 0 finished or nothing left to do, 1
failed, 2 bad usage or config, 75 stopped by a signal (run again).
"""

from rattn_jax.cli import set_up_process
from rattn_jax.train import main, use_huge_pages

if __name__ == "__main__":
    use_huge_pages()
    set_up_process()
    main(prog="main.py")
