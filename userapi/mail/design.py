"""The look of mails: the logo and the colour of the operator."""

from dataclasses import dataclass

# The luminance at which black and white text have the same contrast (WCAG 2.2, §1.4.3).
_EQUAL_CONTRAST = 0.179


@dataclass(frozen=True, slots=True, kw_only=True)
class MailDesign:
    """The logo, or "" for the name of the service, and the colour as #rrggbb."""

    logo_url: str = ""
    color: str = "#1f5fbf"

    @property
    def text_color(self) -> str:
        """Return black or white: the one that is easier to read on the colour."""
        return "#000000" if _luminance(self.color) > _EQUAL_CONTRAST else "#ffffff"


def _luminance(color: str) -> float:
    """Return the relative luminance of a colour, from 0 for black to 1 for white (WCAG 2.2)."""
    red, green, blue = (_linear(int(color[i : i + 2], 16) / 255) for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
