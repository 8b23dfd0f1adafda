"""IP addresses in canonical form, in which they are stored, counted and compared.

An IPv4 address that a dual-stack socket writes as `::ffff:192.0.2.7` is the IPv4 address. IPv6 is
compressed and in lower case (RFC 5952), without a zone, which is valid on one machine only.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from userapi.characters import without_blanks_around
from userapi.errors import invalid_field

# Brackets as in URLs; some proxies write the port of the client, too.
WITH_PORT = re.compile(r"\[([^\]]*)\](?::[0-9]+)?|([0-9.]+):[0-9]+", re.ASCII)
# Longer texts are not cached, because clients could fill the memory with them.
MAX_CACHED_LENGTH = 64


def canonical_address(text: str) -> str | None:
    """Return an address in canonical form, without port and zone; None for any other text."""
    return _cached(text) if len(text) <= MAX_CACHED_LENGTH else _read(text)


def _read(text: str) -> str | None:
    ported = WITH_PORT.fullmatch(text)
    written = (ported[1] or ported[2]) if ported else text
    try:
        address = ip_address(written.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


_cached = lru_cache(maxsize=4096)(_read)


def parse_address(text: str, *, field: str = "ip_address") -> str:
    """Return the canonical form of user input. Raises Invalid that names `field`."""
    address = canonical_address(without_blanks_around(text))
    if address is None:
        raise invalid_field(
            field, "Must be an IP address such as 192.0.2.7 or 2001:db8::7.", "invalid_address"
        )
    return address


def former_spellings(address: str) -> tuple[str, ...]:
    """Return the other spellings under which earlier releases stored an address."""
    if ":" in address:
        return ()
    packed = IPv4Address(address).packed.hex()
    mapped = f"::ffff:{int(packed[:4], 16):x}:{int(packed[4:], 16):x}"
    return (f"::ffff:{address}", mapped)
