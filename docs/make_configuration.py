"""Writes docs/configuration.md from the comments of configs/default.py.

python docs/make_configuration.py
"""

import re
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_KEY = re.compile(r"    config\.([\w.]+) = (.*?)(?:  # (.*))?")
_PLACEHOLDER = re.compile(r"config_dict\.placeholder\((\w+)\)")
_HEAD = """# All keys of the config

Written by `docs/make_configuration.py` from `configs/default.py`, the config of the paper's recipe
on CIFAR-10; the other configs start from it and change some keys. Every key can be set on the
command line, as in `--config.optimizer.learning_rate=0.05`.
"""


def configuration() -> str:
    """The page, as Markdown: the keys of the run itself, then section by section."""
    lines = (_ROOT / "configs/default.py").read_text().splitlines()
    body = lines[lines.index("    config = ConfigDict()") + 1 : lines.index("    return config")]
    texts = {"": ""}
    rows: dict[str, list[str]] = {"": []}
    comment: list[str] = []
    for line in body:
        if line.startswith("    # "):
            comment.append(line.removeprefix("    # "))
        elif match := _KEY.fullmatch(line):
            key, value, remark = match.groups()
            text = " ".join([*comment, *([remark] if remark else [])])
            comment = []
            if value == "ConfigDict()":
                texts[key], rows[key] = text, []
            else:
                default = _PLACEHOLDER.sub(r"None (\1)", value)
                rows[key.rpartition(".")[0]].append(f"| `{key}` | `{default}` | {text} |")
    parts = [_HEAD]
    for section, found in rows.items():
        parts += [f"## {section}\n"] if section else []
        parts += [f"{texts[section]}\n"] if texts[section] else []
        parts.append("\n".join(["| key | default | |", "|---|---|---|", *found, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    (_ROOT / "docs/configuration.md").write_text(configuration())
