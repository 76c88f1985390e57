"""Turns an SVG file as matplotlib writes it into an element that can stand in a page beside others.

Inlined figures share one document: two equal ids would make one figure clip by the other's frame, and a
stylesheet inside a figure would reach the whole page. Colours are handed over to the page too, so that one
drawing suits light and dark. Only tags are touched, never the text between them.
"""

from __future__ import annotations

import re
from typing import Final

# Stand-ins that no palette contains, to draw with.
INK: Final = "#010203"
TOGETHER: Final = "#010204"
ALONE: Final = "#010205"
PAPER: Final = "#010206"

_OF_THE_PAGE: Final = {
    INK: "currentColor",
    TOGETHER: "var(--together)",
    ALONE: "var(--alone)",
    PAPER: "var(--paper)",
}


def for_page(text: str, name: str, width_px: int, height_px: int) -> str:
    """Returns an SVG file's picture as an element for a page.

    Args:
        text: The file, as matplotlib writes it.
        name: The figure's name, unique on its page; it starts every id and is the element's class.
        width_px: The natural width in CSS pixels, which is also the width in the drawing's own units.
        height_px: The natural height, likewise.

    Returns:
        The element, on one line.
    """
    body = text[text.index("</metadata>") + len("</metadata>") :]
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r"<[^>]*>", lambda tag: _tag_for_page(tag.group(), name), body)
    body = re.sub(r"\s*\n\s*", " ", body).strip()
    size = f'viewBox="0 0 {width_px} {height_px}" width="{width_px}" height="{height_px}"'
    return f'<svg class="plot {name}" {size}>{body}'


def _tag_for_page(tag: str, name: str) -> str:
    if tag.startswith("<g "):
        tag = re.sub(r' id="[^"]*"', "", tag)  # nothing refers to a group
    tag = tag.replace(' id="', f' id="{name}-')
    tag = tag.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    for stand_in, colour in _OF_THE_PAGE.items():
        tag = tag.replace(stand_in, colour)
    return tag
