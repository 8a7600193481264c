"""Serves a trained network over HTTP.

    rattn serve --workdir=runs/mine
    curl --data-binary @photo.jpg "http://127.0.0.1:8000/predict?top=3"

Images of concurrent requests are computed together. http://127.0.0.1:8000/ is a page to drop an
image on, which shows classes and masks. POST /explain answers with both, /openapi.json describes
all, and /health and /ready are for what watches over the service.

An image has 10 MB and 25 million pixels at most, a JPEG file 100 scans, a TIFF file 20,000 strips
or tiles of 50 million pixels together. There is no encryption and no login: programs of this
machine alone can reach the service, unless --host names another address. SIGTERM or Ctrl-C ends it
when all requests that have begun are answered. It needs `pip install -e '.[serve]'`.
"""

import argparse
from collections.abc import Sequence

from rattn_jax.cli import Parser, add_workdir, errors_on_one_line, positive, working
from rattn_jax.errors import UsageError
from rattn_jax.inference.network import load
from rattn_jax.serving.limits import Limits


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves what the command line names."""
    parser, usual = Parser("rattn serve", __doc__), Limits()
    add_workdir(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8000, help="port (8000); 0: any free one")
    for flag, value, text in (
        ("--batch-size", usual.batch_size, "images that are computed at once"),
        ("--queue", usual.queue, "requests at the same time; others get 503"),
        ("--max-bytes", usual.max_bytes, "size of an image file"),
        ("--read-seconds", usual.read_seconds, "until a request, or an answer, must have arrived"),
        ("--answer-seconds", usual.answer_seconds, "from a request to its answer"),
    ):
        help_text = f"{text} ({value:,g})" if value != usual.max_bytes else f"{text} ({value:,})"
        parser.add_argument(flag, type=positive, default=value, help=help_text)
    options = parser.parse(arguments)
    with errors_on_one_line(parser.prog):
        try:
            from rattn_jax.serving.app import create_app
            from rattn_jax.serving.server import open_port, serve
        except ImportError as error:
            raise UsageError(
                f"rattn serve needs {error.name}, which is not installed: pip install -e '.[serve]'"
            ) from error
        limits = Limits(
            batch_size=options.batch_size,
            queue=options.queue,
            max_bytes=options.max_bytes,
            read_seconds=options.read_seconds,
            answer_seconds=options.answer_seconds,
        )
        # Before the minutes of compiling; requests that come meanwhile wait.
        with open_port(options.host, options.port) as listening:
            with working("reading the run") as console:
                network = load(options.workdir, options.step, fold_batch_norm=True)
                sizes = ", ".join(map(str, limits.batch_sizes))
                console.enter(f"compiling for batches of {sizes}")
                app = create_app(network, limits)
            host, port = listening.getsockname()[:2]
            host = f"[{host}]" if ":" in host else host
            print(f"serving on http://{host}:{port}/", flush=True)
            serve(app, listening, limits)


def _port(text: str) -> int:
    if text != "0" and positive(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text}: must be at most 65535")
    return int(text)


if __name__ == "__main__":
    main()
