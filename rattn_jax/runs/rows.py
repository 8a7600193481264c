"""Reads files of one JSON object per line: metrics.jsonl and mask_health.jsonl.

rows = read_rows(folder / "metrics.jsonl")
"""

import json
from typing import Any

from etils import epath

from rattn_jax.errors import UsageError


def read_rows(path: epath.Path) -> list[dict[str, Any]]:
    """The whole lines, oldest first; none if there is no file.

    The text after the last newline is a line that is being written, or that a killed process left.

    Raises:
        UsageError: a line is damaged.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def _parse(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode())
        if isinstance(row["step"], int) and isinstance(row["split"], str):
            return dict(row)
    except (ValueError, KeyError, TypeError):
        pass
    raise UsageError(
        f"{place} is damaged: it must be a JSON object with step and split; remove that line, or "
        "put back a copy of the file"
    )
