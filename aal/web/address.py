"""Where the page is: its address, its socket, and whether it can be opened."""

import contextlib
import errno
import socket
import ssl
from collections.abc import Callable, Sequence

from aal.config.errors import UserError
from aal.config.people import PeopleSettings
from aal.config.settings import Settings

LOOPBACK = ("127.", "::1", "localhost")
LOOK_S = 0.5


def address(people: PeopleSettings) -> str:
    """Returns what people open, without a path."""
    if people.address:
        return people.address
    host = people.host
    if host in ("0.0.0.0", "::"):  # noqa: S104 - as the user says
        host = _own_address()
    scheme = "https" if people.tls_certificate else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{people.port}"


def _own_address() -> str:
    """Returns the address of this machine in its network, by asking which one would be used; nothing is sent."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect(("192.0.2.1", 9))  # of no machine: RFC 5737
        return str(asked.getsockname()[0])
    return socket.gethostname()


def listening(people: PeopleSettings) -> socket.socket:
    """Returns a socket at the address of the page.

    Raises:
        UserError: the address or the port cannot be had.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(people.host, people.port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        text = f"{people.host}: {error.strerror or error}; give an address of this machine"
        raise UserError(f"people.host: {text}") from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise UserError(f"people.host: {people.host}: is no address of this machine") from None
        text = f"{people.host} port {people.port}: {error.strerror or error}"
        raise UserError(f"people.port: {text}; give another, as people.port={people.port % 65535 + 1}") from None
    return made


def check_page(settings: Settings) -> None:
    """Checks that the page can be served, before anything is started.

    Raises:
        UserError: its port is taken, or its certificate cannot be used.
    """
    people = settings.people
    if not people.label:
        return
    listening(people).close()
    if people.tls_certificate and people.tls_key:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(people.tls_certificate, people.tls_key)
        except (OSError, ssl.SSLError) as error:
            files = f"{people.tls_certificate} and {people.tls_key}"
            text = f"{files}: are no certificate and its key in PEM ({error.strerror or error})"
            raise UserError(f"people.tls_certificate: {text}") from None


def when_open(people: PeopleSettings, lines: Sequence[str], say: Callable[[str], None]) -> Callable[[], None]:
    """Returns what looks whether the page can be opened, and as soon as it can says the lines, once.

    Args:
        people: where the page is.
        lines: with the links.
        say: is given each.
    """
    unsaid = list(lines)

    def look() -> None:
        if not unsaid:
            return
        with contextlib.suppress(OSError), socket.create_connection((people.host, people.port), LOOK_S):
            while unsaid:
                say(unsaid.pop(0))

    return look
