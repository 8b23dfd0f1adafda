"""Reads the public keys that the service publishes (RFC 7517)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jwt import PyJWK
from jwt.exceptions import PyJWTError

MIN_RSA_BITS = 2048
_KINDS = {"ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519"), "RS256": ("RSA", None)}


class PublishedKey:
    """A public key and the document that it was read from."""

    __slots__ = ("document", "jwk")

    def __init__(self, document: Mapping[str, Any], jwk: PyJWK) -> None:
        self.document = document
        self.jwk = jwk


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys by their id. `generation` increases when the keys change."""

    keys: Mapping[str, PublishedKey]
    generation: int

    def with_keys(self, keys: Mapping[str, PublishedKey]) -> "KeySet":
        """Return the set with these keys; the same set if they have not changed."""
        return self if keys == self.keys else KeySet(keys, self.generation + 1)


def read_keys(
    body: bytes, *, algorithm: str, known: Mapping[str, PublishedKey]
) -> dict[str, PublishedKey]:
    """Return the usable keys of a set by their id. Raises ValueError if there is none.

    A key that is `known` already keeps its object. Keys of another algorithm or use are skipped.
    """
    try:
        document = json.loads(body)
    except RecursionError as exc:
        raise ValueError("The key set is nested too deeply.") from exc
    entries = document.get("keys") if isinstance(document, dict) else None
    found: dict[str, PublishedKey] = {}
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or not _is_usable(entry, algorithm):
            continue
        kid = entry["kid"]
        if kid in known and known[kid].document == entry:
            found[kid] = known[kid]
            continue
        try:
            jwk = PyJWK(entry, algorithm=algorithm)
        except (PyJWTError, ValueError, TypeError):
            continue
        if algorithm == "RS256" and jwk.key.key_size < MIN_RSA_BITS:
            continue
        found[kid] = PublishedKey(entry, jwk)
    if not found:
        raise ValueError("The key set contains no usable key.")
    return found


def _is_usable(entry: Mapping[str, Any], algorithm: str) -> bool:
    kid, (kind, curve) = entry.get("kid"), _KINDS[algorithm]
    return (
        isinstance(kid, str)
        and bool(kid)
        and entry.get("kty") == kind
        and (curve is None or entry.get("crv") == curve)
        and entry.get("alg", algorithm) == algorithm
        and entry.get("use", "sig") == "sig"
        and "d" not in entry
    )
