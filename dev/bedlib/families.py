"""The families of addresses that the part `node` has: IPv4, IPv6, or both."""
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from .report import BedError

VARIABLE = "NODE_FAMILIES"


@dataclass(frozen=True)
class Family:
    """The node's address in one family, the range of its pods, and that of the Services."""

    name: str
    address: str
    pods: str
    services: str

    @property
    def version(self):
        return ipaddress.ip_address(self.address).version

    @property
    def host(self):
        """The address as URLs have it."""
        return url_host(self.address)

    @property
    def everywhere(self):
        return {4: "0.0.0.0/0", 6: "::/0"}[self.version]

    @property
    def of_the_api(self):
        """The address of the Service `kubernetes`: the first one of the range."""
        return str(ipaddress.ip_network(self.services)[1])

    @property
    def switches(self):
        """What the kernel is told, for a node that passes packets on to pods."""
        return {4: "net.ipv4.ip_forward=1", 6: "net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.all.forwarding=1"}[self.version]


IPV4 = Family("ipv4", "10.99.0.1", "10.244.0.0/24", "10.96.0.0/16")
IPV6 = Family("ipv6", "fd00:99::1", "fd00:244::/64", "fd00:96::/112")
# With both, the first is that of whatever has one address only.
CHOICES = {"ipv4": (IPV4,), "ipv6": (IPV6,), "dual": (IPV4, IPV6)}
DEFAULT = "ipv4"


@dataclass(frozen=True)
class Families:
    """One of the choices."""

    name: str

    @property
    def members(self):
        return CHOICES[self.name]

    @property
    def first(self):
        return self.members[0]

    @property
    def has_ipv6(self):
        return IPV6 in self.members

    def joined(self, field):
        """What each family has as this, with commas between."""
        return ",".join(getattr(family, field) for family in self.members)


def asked_for():
    """What the caller wants, if anything."""
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    if name not in CHOICES:
        raise BedError(f"node: {VARIABLE} is {name}, and may be {', '.join(CHOICES)}")
    families = Families(name)
    if families.has_ipv6 and not Path("/proc/sys/net/ipv6").exists():
        raise BedError(f"node: this machine's kernel has no IPv6, so {VARIABLE} cannot be {name}")
    return families


def url_host(address):
    """An address as URLs have it."""
    return f"[{address}]" if ":" in address else address
