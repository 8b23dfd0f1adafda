"""base64url without padding, as WebAuthn writes binary values in JSON (RFC 4648 §5)."""

import base64


def base64url(value: bytes) -> str:
    """Return bytes as text."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
