"""The service's addresses: what it takes and what it answers.

app = create_app(network, Limits())     # compiles; then run it with `server.py` or a test client

An image is the body of a request, as it is in its file. An error is {"error": "one line"}; no
answer and no line of the log has anything of a request in it.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib import resources
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

from rattn_jax.data.decoding import BadImageError
from rattn_jax.errors import UsageError
from rattn_jax.inference.network import Classifier
from rattn_jax.inference.untrusted import (
    FORMATS,
    MAX_PIXELS,
    TooLargeError,
    UnknownFormatError,
    check_header,
)
from rattn_jax.parallel.cpus import num_cpus
from rattn_jax.report.pictures import color_range, data_uri, overlay
from rattn_jax.serving.batcher import Batcher
from rattn_jax.serving.limits import Limits

# Images that are decoded at the same time: one of 25 million pixels takes 0.55 GB as WebP, and up
# to 0.35 GB in other formats.
_MAX_DECODERS = 4
# The page needs nothing but itself and the answers.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src data: blob:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
_IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "description": f"An image file: {', '.join(FORMATS)}, of at most {MAX_PIXELS:,} pixels.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class Prediction(BaseModel):
    """A class and its probability."""

    name: str = Field(alias="class")
    index: int
    probability: float


class Predictions(BaseModel):
    """The most probable classes, the first the most."""

    predictions: list[Prediction]


class Mask(BaseModel):
    """The mask of an attention module, the mean of its channels, over the image."""

    module: str
    lowest: float = Field(description="of the mask, where the picture is dark")
    highest: float = Field(description="of the mask, where the picture is light")
    picture: str = Field(description="a PNG file as data URI")


class Explanation(Predictions):
    """The most probable classes and the masks of all attention modules."""

    masks: list[Mask]


class Error(BaseModel):
    """What is wrong, in one line."""

    error: str


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": text}
    for status, text in {
        408: "The request did not arrive in time.",
        413: "Too many bytes, pixels, scans of a JPEG file, or parts of a TIFF file.",
        415: "Not an image file of a known format.",
        422: "A damaged image, or a wrong parameter.",
        503: "Too many requests: try again after Retry-After seconds.",
        504: "No answer in time.",
    }.items()
}
_Top = Annotated[int, Query(ge=1, description="how many classes")]


def create_app(network: Classifier, limits: Limits) -> FastAPI:
    """The service of a network, which is compiled for all batch sizes when this returns."""
    service = _Service(network, limits)
    app = FastAPI(
        title=f"rattn_jax: {network.config.model.name}",
        version=f"{network.step} updates",
        docs_url=None,  # pages that load scripts from elsewhere
        redoc_url=None,
        lifespan=service.run,
        exception_handlers={
            AnyHTTPException: _say_error,
            RequestValidationError: _say_wrong_parameter,
            Exception: _say_failure,
        },
    )
    for path, answer, form in (
        ("/predict", service.predict, Predictions),
        ("/explain", service.explain, Explanation),
    ):
        app.post(path, response_model=form, responses=_ERRORS, openapi_extra=_IMAGE_BODY)(answer)
    app.get("/health")(_health)
    app.get("/ready", responses={503: _ERRORS[503]})(service.ready)
    app.get("/", include_in_schema=False)(_page)
    return app


async def _health() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "alive"}


async def _page() -> HTMLResponse:
    page = (resources.files("rattn_jax.serving") / "page.html").read_text("utf-8")
    return HTMLResponse(page, headers=_PAGE_HEADERS)


def _error(status: int, text: str, **headers: str) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers)


async def _say_error(request: Request, error: Any) -> JSONResponse:
    return _error(error.status_code, str(error.detail), **(error.headers or {}))


async def _say_wrong_parameter(request: Request, error: Any) -> JSONResponse:
    first = error.errors()[0]
    return _error(422, f"{first['loc'][-1]}: {first['msg']}")


async def _say_failure(request: Request, error: Exception) -> JSONResponse:
    return _error(500, "the service has failed to answer this request")


class _Service:
    """Reads images, and answers with what the network says of them."""

    def __init__(self, network: Classifier, limits: Limits) -> None:
        self._network, self._limits = network, limits
        self._num_requests = 0
        self._decoders: ThreadPoolExecutor | None = None
        self._batchers: dict[str, Batcher] = {}  # of the event loop in which the service runs
        self._tasks: list[asyncio.Task[None]] = []
        self._has_masks = _compile(network, limits)

    @asynccontextmanager
    async def run(self, app: FastAPI) -> AsyncIterator[None]:
        """Computes while the block lasts."""
        explain = self._explain_each if self._has_masks else self._predict_each
        self._batchers = {
            "predict": Batcher(self._network.predict_decoded, self._limits.batch_sizes),
            "explain": Batcher(explain, (1,)),
        }
        self._tasks = [asyncio.create_task(b.run()) for b in self._batchers.values()]
        with ThreadPoolExecutor(min(num_cpus(), _MAX_DECODERS), "decoder") as self._decoders:
            yield
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def ready(self) -> dict[str, str]:
        """Whether images are predicted: everything is compiled, and the network is at work."""
        if not self._tasks or any(task.done() for task in self._tasks):
            raise HTTPException(503, "the network is not at work")
        return {"status": "ready"}

    async def predict(self, request: Request, top: _Top = 5) -> JSONResponse:
        """Predicts the classes of the image that is the body of the request."""
        probabilities = await self._answer(request, "predict")
        return JSONResponse({"predictions": self._network.most_probable(probabilities, top)})

    async def explain(self, request: Request, top: _Top = 5) -> JSONResponse:
        """Like /predict, with the masks of the attention modules, if the network has some."""
        probabilities, masks = await self._answer(request, "explain")
        predictions = self._network.most_probable(probabilities, top)
        return JSONResponse({"predictions": predictions, "masks": masks})

    async def _answer(self, request: Request, kind: str) -> Any:
        if self._num_requests >= self._limits.queue:
            raise HTTPException(503, "too many requests: try again", {"Retry-After": "1"})
        self._num_requests += 1
        try:
            data = await _read(request, self._limits)
            async with asyncio.timeout(self._limits.answer_seconds):
                loop = asyncio.get_running_loop()
                image = await loop.run_in_executor(self._decoders, self._decode, data)
                return await self._batchers[kind].submit(image)
        except TimeoutError:
            seconds = self._limits.answer_seconds
            raise HTTPException(504, f"no answer within {seconds:g} s: try again") from None
        finally:
            self._num_requests -= 1

    def _decode(self, data: bytes) -> np.ndarray:
        try:
            check_header(data)
            return self._network.decode(data)
        except UnknownFormatError as error:
            raise HTTPException(415, f"the image {error}") from None
        except TooLargeError as error:
            raise HTTPException(413, f"the image {error}") from None
        except BadImageError:
            raise HTTPException(422, "the image is damaged, or not of 8 or 16 bits") from None

    def _explain_each(self, images: np.ndarray, size: int) -> Sequence[Any]:
        probabilities, maps = self._network.attention(images)
        means = {name: np.asarray(found.mask).mean(axis=-1) for name, found in maps.items()}
        return [
            (row, [_picture(name, images[i], mask[i]) for name, mask in means.items()])
            for i, row in enumerate(probabilities)
        ]

    def _predict_each(self, images: np.ndarray, size: int) -> Sequence[Any]:
        return [(row, []) for row in self._network.predict_decoded(images, size)]


def _picture(module: str, image: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """A mask [h, w] over its image, with the values of its darkest and lightest color."""
    colors = color_range(mask)
    picture = data_uri(overlay(image, mask, colors))
    return {"module": module, "lowest": colors.low, "highest": colors.high, "picture": picture}


def _compile(network: Classifier, limits: Limits) -> bool:
    """Computes once all that will be computed; returns whether the network has masks."""
    blank = np.zeros((1, network.image_size, network.image_size, 3), np.uint8)
    for size in limits.batch_sizes:
        network.predict_decoded(blank, size)
    try:
        network.attention(blank)
    except UsageError:
        return False
    return True


async def _read(request: Request, limits: Limits) -> bytes:
    """The body of a request."""
    too_large = HTTPException(413, f"the body has more than {limits.max_bytes:,} bytes")
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise HTTPException(415, "the body must be the image itself: curl --data-binary @FILE")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.max_bytes:
        raise too_large
    data = bytearray()
    try:
        async with asyncio.timeout(limits.read_seconds):
            async for part in request.stream():
                data += part
                if len(data) > limits.max_bytes:
                    raise too_large
    except TimeoutError:
        raise HTTPException(408, f"the body took longer than {limits.read_seconds:g} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the body ended early") from None
    return bytes(data)
