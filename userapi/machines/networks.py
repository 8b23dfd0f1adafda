"""The networks from which an API key can be used."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from userapi.errors import FieldError, Invalid, invalid_field

MAX_NETWORKS = 20
# An IPv4 address in an IPv6 socket: ::ffff:192.0.2.0/120 is the network 192.0.2.0/24.
_MAPPED = IPv6Network("::ffff:0:0/96")
_MAPPED_BITS = 96

Network = IPv4Network | IPv6Network


def parse_networks(texts: Sequence[str], *, field: str = "allowed_networks") -> list[str]:
    """Return addresses and CIDR blocks in canonical form. Raises Invalid for each other text.

    A block with host bits is rejected, because it is not clear what its author meant.
    """
    if not 1 <= len(texts) <= MAX_NETWORKS:
        raise invalid_field(field, f"Must contain 1 to {MAX_NETWORKS} networks.", "invalid_network")
    networks, faults = [], []
    for index, text in enumerate(texts):
        try:
            network = _network(text)
            networks.append(str(network if "/" in text else network.network_address))
        except ValueError:
            message = "Must be a network such as 192.0.2.0/24 or 2001:db8::/32, without host bits."
            faults.append(FieldError(f"{field}.{index}", message, "invalid_network"))
    if faults:
        raise Invalid(faults)
    return list(dict.fromkeys(networks))


def is_allowed(address: str | None, networks: Sequence[str] | None) -> bool:
    """Return whether an address, in canonical form, is in one of the networks; None: any."""
    if networks is None:
        return True
    if address is None:
        return False
    try:
        parsed = ip_address(address)
    except ValueError:
        return False  # A Unix socket without a proxy in front has no address.
    return any(parsed in network for network in _parsed(tuple(networks)))


@lru_cache(maxsize=4096)
def _parsed(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(map(_network, texts))


def _network(text: str) -> Network:
    """Return the network that a text names. Raises ValueError.

    Texts with a mask such as 192.0.2.0/255.255.255.0, and with a zone, name no network.
    """
    _, slash, length = text.partition("/")
    if (slash and not (length.isascii() and length.isdigit())) or "%" in text:
        raise ValueError(text)
    network = ip_network(text, strict=True)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network(
            (int(network.network_address) & 0xFFFFFFFF, network.prefixlen - _MAPPED_BITS)
        )
    return network
