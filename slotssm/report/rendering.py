"""HTML from a page: one template, one style sheet and one script, all packaged and embedded in the file."""

import base64
import hashlib
import itertools
import re
from importlib import resources

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from slotssm.report.page import Page, number

_FOLDER = resources.files("slotssm.report") / "templates"


def render(page: Page) -> str:
    """The page as one HTML document that loads nothing else; every text is escaped.

    A browser refuses any script other than the one of the page, and any connection.
    """
    template, style, script = (
        (_FOLDER / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")
    )
    environment = Environment(
        loader=DictLoader({"page": template}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "trusted": Markup, "color": _color}
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = environment.get_template("page").render(
        page=page, anchors=_anchors(page), style=Markup(style), script=Markup(script), script_hash=digest
    )
    # names of files that are not valid Unicode become question marks
    return text.encode("utf-8", "replace").decode()


def _anchors(page: Page) -> list[str]:
    """A name for links to each section, from its heading; equal ones are numbered."""
    anchors: list[str] = []
    for section in page.sections:
        name = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") or "part"
        numbered = (f"{name}-{n}" for n in itertools.count(2))
        anchors.append(next(each for each in itertools.chain([name], numbered) if each not in anchors))
    return anchors


def _color(color: tuple[int, int, int]) -> str:
    red, green, blue = (int(part) for part in color)
    return f"rgb({red},{green},{blue})"
