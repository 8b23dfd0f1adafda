"""Codes of authenticator apps (RFC 6238): SHA-1, six digits, a new code every 30 seconds."""

import io
import re
from datetime import datetime
from urllib.parse import quote

import pyotp
import segno
from pyotp.exceptions import OTPVerificationError

SECRET_CHARACTERS = 32  # of base32: 160 bits, as RFC 4226 §4 recommends
STEP_SECONDS = 30
# A code is accepted for the step before, now and after: clocks of phones differ (RFC 6238 §5.2).
TOLERATED_STEPS = 1
QUIET_ZONE_MODULES = 4  # ISO/IEC 18004

# Other digits of Unicode are none: PyOTP would accept them.
_CODE = re.compile(r"[0-9]{6}", re.ASCII)


def new_secret() -> str:
    """Return a random secret in base32, without padding."""
    return pyotp.random_base32(SECRET_CHARACTERS)


def has_form_of_code(text: str) -> bool:
    """Return whether a text without blanks is the code of an app, right or wrong."""
    return _CODE.fullmatch(text) is not None


def step_of_code(secret: str, code: str, *, now: datetime) -> int | None:
    """Return the time step of a code that is valid now, or None.

    The caller must accept each step only once.
    """
    if not has_form_of_code(code):
        return None
    try:
        return pyotp.TOTP(secret, interval=STEP_SECONDS).verify_and_get_timecode(
            code, for_time=now, valid_window=TOLERATED_STEPS
        )
    except OTPVerificationError:
        return None


def key_uri(secret: str, *, issuer: str, username: str) -> str:
    """Return the URI that an app reads from a QR code.

    With every parameter, though the defaults are the same: some apps require them.
    """
    label = f"{quote(issuer, safe='')}:{quote(username, safe='')}"
    return (
        f"otpauth://totp/{label}?secret={secret}&issuer={quote(issuer, safe='')}"
        f"&algorithm=SHA1&digits=6&period={STEP_SECONDS}"
    )


def qr_code(uri: str) -> str:
    """Return an SVG document with the QR code of a URI, on white: readers need the contrast."""
    document = io.BytesIO()
    segno.make(uri, micro=False).save(
        document,
        kind="svg",
        border=QUIET_ZONE_MODULES,
        light="white",
        scale=4,
        xmldecl=False,
        nl=False,
        svgclass=None,
        lineclass=None,
    )
    return document.getvalue().decode()
