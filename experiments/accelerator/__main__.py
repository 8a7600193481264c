"""What an accelerator computes, how fast, and networks trained on it.

    python -m experiments.accelerator check --out=DIR [--minutes=2]

check: logits, an update and running averages beside those of a CPU, in float32 and bfloat16.
Every row is printed and written to DIR as soon as it is known, so that a command that is cut off
leaves what it has found. The exit status is 1 if something differs more than it may.
"""

import argparse
import sys


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="experiments.accelerator",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["check"])
    parser.add_argument("--out", required=True, help="folder for the results")
    parser.add_argument("--minutes", type=float, default=2, help="time limit")
    parser.add_argument("--tiny", action="store_true", help="a small network, to rehearse")
    options = parser.parse_args()
    from experiments.accelerator.check import CASES, TINY_CASES, check
    from experiments.accelerator.record import Record

    record = Record(options.out, options.command, options.minutes)
    sys.exit(not check(record, TINY_CASES if options.tiny else CASES))


if __name__ == "__main__":
    main()
