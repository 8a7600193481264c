"""A bucket in memory, reached in both ways that a run reaches gs://.

epath goes through fsspec, TensorStore through Google's JSON API over HTTP: just as much of it as
TensorStore asks for is here.
"""

import json
import os
import threading
import time
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class Bucket(MemoryFileSystem):
    """fsspec's file system in memory as gs://, with the names that gcsfs gives."""

    protocol = ("gs", "gcs")
    store: dict = {}  # noqa: RUF012 (this is how fsspec keeps it)
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("gs://"))

    def glob(self, path, **options):
        return [name.removeprefix("/") for name in super().glob(path, **options)]


class JsonApi(BaseHTTPRequestHandler):
    """Objects of the bucket: /storage/v1/b/BUCKET/o[/NAME], and /upload before it to write."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def parse(self):
        url = urlsplit(self.path)
        bucket, _, name = url.path.partition("/b/")[2].partition("/o")
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        path = f"/{bucket}/"
        return path, path + unquote(name.removeprefix("/")), query

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for key, value in ({"Content-Length": len(body)} | headers).items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        bucket, path, query = self.parse()
        if path == bucket:
            start, end = query.get("startOffset", ""), query.get("endOffset", "\U0010ffff")
            names = (path.removeprefix(bucket) for path in list(Bucket.store))
            found = [
                {"name": name, "size": str(Bucket.store[bucket + name].size), "generation": "1"}
                for name in sorted(names)
                if name.startswith(query.get("prefix", "")) and start <= name < end
            ]
            return self.answer(HTTPStatus.OK, json.dumps({"items": found}).encode())
        if path not in Bucket.store:
            return self.answer(HTTPStatus.NOT_FOUND)
        file = Bucket.store[path]
        body, generation = file.getvalue(), int(file.modified.timestamp() * 1e6)
        status, headers = HTTPStatus.OK, {"x_goog_generation": generation}
        if part := self.headers["Range"]:
            first, last = part.removeprefix("bytes=").split("-")
            start, end = int(first), min(int(last or len(body)) + 1, len(body))
            headers["Content_Range"] = f"bytes {start}-{end - 1}/{len(body)}"
            body, status = body[start:end], HTTPStatus.PARTIAL_CONTENT
        return self.answer(status, body, **headers)

    def do_POST(self):
        bucket, _, query = self.parse()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Bucket().pipe_file(bucket + query["name"], body)
        description = {"name": query["name"], "generation": str(time.time_ns() // 1000)}
        self.answer(HTTPStatus.OK, json.dumps(description).encode())

    def do_DELETE(self):
        found = Bucket.store.pop(self.parse()[1], None)
        self.answer(HTTPStatus.NO_CONTENT if found else HTTPStatus.NOT_FOUND)


@contextmanager
def serve_bucket():
    """While the block runs, every gs:// path of this process is in memory."""
    Bucket.store.clear()
    for name in Bucket.protocol:
        fsspec.register_implementation(name, Bucket, clobber=True)
    server = ThreadingHTTPServer(("localhost", 0), JsonApi)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    asked_by_tensorstore = {
        "TENSORSTORE_GCS_HTTP_URL": f"http://localhost:{server.server_port}",
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "any",
    }
    try:
        with mock.patch.dict(os.environ, asked_by_tensorstore):
            yield Bucket
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
