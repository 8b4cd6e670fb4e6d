"""Addresses as people write them and as sockets give them."""

import ipaddress

Address = tuple[str, int]
"""Host and port of an endpoint."""

PORT_MAX = 65535


class AddressError(ValueError):
    """A host and port that can't be read. Its text is fit for a usage message."""


def parse_host_port(text: str) -> Address:
    """Read `127.0.0.1:15000`, `localhost:15000` or `[::1]:15000`. Port 0 means: any free one.

    Raises AddressError.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon or not host:
        raise AddressError(f"{text!r} is not host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise AddressError(f"{text!r}: an IPv6 address is written in brackets, such as [::1]:15000")
    # int() would take signs, spaces, underscores and foreign digits.
    if not (port_text.isascii() and port_text.isdigit()) or int(port_text) > PORT_MAX:
        raise AddressError(f"{text!r}: the port is not a number from 0 to {PORT_MAX}")
    if not _is_host(host):
        raise AddressError(f"{text!r}: the host is not a name or an address")
    return host, int(port_text)


def _is_host(host: str) -> bool:
    try:
        # What the resolver does first; it fails on empty and on overlong labels.
        host.encode("idna")
    except UnicodeError:
        return False
    return bool(host) and host.isprintable() and not any(c.isspace() for c in host)


def format_host_port(host: str, port: int) -> str:
    """The form that `parse_host_port` reads."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can be meant. A name other than `localhost` is never trusted to be."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def address_group(host: str) -> str:
    """Whose connections are counted together (T25): an IPv4 address, or an IPv6 /64, which one customer owns."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
