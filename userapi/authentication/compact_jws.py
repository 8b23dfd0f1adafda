"""Tokens whose header does not change: JWS in compact form (RFC 7515 §3.1).

PyJWT serialises and checks the header of each token and prepares the key each time, which takes
longer than signing. Here both happen once for each key. PyJWT's algorithms sign.
"""

import base64
import hmac
from collections.abc import Mapping
from typing import Any

import jwt
import orjson

from userapi.authentication.refusals import TokenInvalid
from userapi.authentication.token_claims import COMPACT_FORM, MAX_TOKEN_LENGTH, strict_object


class CompactJws:
    """Signs payloads with one key, under one header."""

    def __init__(self, *, algorithm: str, key: Any, header: Mapping[str, str]) -> None:
        """Prepare the key and the header; `header` has no `alg`.

        Raises what PyJWT raises for a key that does not fit the algorithm.
        """
        self._algorithm = jwt.get_algorithm_by_name(algorithm)
        self._key = self._algorithm.prepare_key(key)
        text = orjson.dumps({"alg": algorithm, **header}, option=orjson.OPT_SORT_KEYS)
        self._start = _base64url(text) + b"."

    def sign(self, payload: Mapping[str, Any]) -> str:
        """Return the token with this payload."""
        signed = self._start + _base64url(orjson.dumps(payload))
        return (signed + b"." + self._signature_of(signed)).decode()

    def _signature_of(self, signed: bytes) -> bytes:
        return _base64url(self._algorithm.sign(signed, self._key))


class SecretJws(CompactJws):
    """Signs with a secret (HMAC with SHA-256), and verifies what it has signed.

    Another spelling of the header or of the signature is rejected, even if it means the same.
    """

    def __init__(self, *, secret: bytes, header: Mapping[str, str]) -> None:
        super().__init__(algorithm="HS256", key=secret, header=header)

    def has_header(self, token: str) -> bool:
        """Return whether a token has the header. Its signature may be wrong."""
        return len(token) <= MAX_TOKEN_LENGTH and token.startswith(self._start.decode())

    def verify(self, token: str) -> dict[str, Any]:
        """Return the payload of a token. Raises TokenInvalid."""
        if not self.has_header(token) or not COMPACT_FORM.fullmatch(token):
            raise TokenInvalid()
        signed, _, signature = token.encode().rpartition(b".")
        if not hmac.compare_digest(signature, self._signature_of(signed)):
            raise TokenInvalid()
        return strict_object(signed[len(self._start) :].decode())


def _base64url(content: bytes) -> bytes:
    """Return Base64 for URLs without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(content).rstrip(b"=")
