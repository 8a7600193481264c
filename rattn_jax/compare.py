"""Writes a page that compares runs: final numbers, curves, and differences of their configs.

    rattn compare runs/a runs/b --out=compare.html

Reads config.json and metrics.jsonl of each run without changing their folders. Runs may still be
training.
"""

from collections.abc import Sequence

from rattn_jax.cli import Parser, errors_on_one_line
from rattn_jax.config.paths import path_of
from rattn_jax.errors import UsageError
from rattn_jax.report.comparison import compare_page, read_run
from rattn_jax.runs.files import absolute, replace_text


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the page."""
    parser = Parser("rattn compare", __doc__)
    parser.add_argument("run", nargs="+", help="folder (workdir) of a run")
    parser.add_argument("--out", default="compare.html", help="the page to write (compare.html)")
    options = parser.parse(arguments)
    with errors_on_one_line(parser.prog):
        short = [absolute(path).name for path in options.run]
        names = short if len(set(short)) == len(short) else options.run
        runs = [read_run(path, name) for path, name in zip(options.run, names, strict=True)]
        try:
            replace_text(path_of(options.out), compare_page(runs))
        except OSError as error:
            raise UsageError(
                f"--out={options.out} cannot be written ({error.strerror}): choose another file"
            ) from error
        print(f"{len(runs)} runs: {options.out}")


if __name__ == "__main__":
    main()
