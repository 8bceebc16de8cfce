"""The templates of the pages. Everything that they are given is escaped."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup


@cache
def _templates() -> Environment:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["px"] = lambda value: f"{value:.1f}".removesuffix(".0")
    found.filters["attribute"] = lambda names: Markup(' class="{}"').format(names) if names else ""
    return found


def render(name: str, **values: object) -> str:
    """A page, from the template of this name."""
    return _templates().get_template(name).render(**values)
