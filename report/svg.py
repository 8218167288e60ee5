"""Drawings as text: elements whose attributes and words are escaped."""

from markupsafe import Markup


def element(name: str, *content: str, **attributes: object) -> Markup:
    """One element of HTML or SVG.

    `class_` and `text_anchor` are written `class` and `text-anchor`, and floats with at most two decimals. Content that
    is no `Markup` is escaped.
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _text(value)) for key, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, Markup("").join(content))


def percent(share: float) -> str:
    """A share of a drawing's width or height, as SVG and CSS write it."""
    return f"{_text(100 * share)}%"


def _text(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
