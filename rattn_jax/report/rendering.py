"""Renders the Jinja2 templates of the pages, in `templates/`.

render("mistakes.html", text="...", tiles=[...])    # Markup, which other templates do not escape
"""

from typing import Any

import jinja2
from markupsafe import Markup

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("rattn_jax.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> Markup:
    """Fills in a template. Values are escaped unless they are Markup."""
    return Markup(_ENVIRONMENT.get_template(template).render(values))
