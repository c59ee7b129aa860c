"""When a certificate expires, read from its file.

The standard library tells it only of certificates that a handshake has verified, which one
that has expired does not survive. So the few bytes in question are read here, by the rules
of DER (ITU-T X.690): each element is a tag, a length, and that many bytes, which may hold
elements again.
"""

import base64
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_PEM = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.*?)-----END", re.DOTALL)

_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
_FORMATS: Final = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}
"""How RFC 5280, section 4.1.2.5, has them written."""

_LAST_UTC_YEAR: Final = 2049
"""A UTCTime's two digits mean 1950 to 2049 there; strptime takes 1969 to 2068."""


def expires_at(path: str) -> float | None:
    """When the first of the certificates in a PEM file expires, in Unix seconds.

    A chain is of no use any more when one of its links is not. None where that cannot be
    told: OpenSSL reads what no authority writes.
    """
    try:
        return min(not_after(base64.b64decode(found)) for found in _PEM.findall(Path(path).read_bytes()))
    except (ValueError, LookupError):
        return None


def not_after(certificate: bytes) -> float:
    """The end of a DER certificate's validity, in Unix seconds; ValueError or LookupError for other bytes.

    RFC 5280, section 4.1: Certificate is a SEQUENCE that begins with TBSCertificate, a
    SEQUENCE of version (tagged, and left out in old ones), serial number, algorithm,
    issuer, validity and more. Validity is a SEQUENCE of two times.
    """
    (_, signed), *_ = _elements(certificate)
    (_, to_be_signed), *_ = _elements(signed)
    _serial, _algorithm, _issuer, (_, validity), *_ = (
        one for one in _elements(to_be_signed) if one[0] != _VERSION
    )
    _, (tag, written) = _elements(validity)
    moment = datetime.strptime(written.decode("ascii"), _FORMATS[tag])
    if tag == _UTC_TIME and moment.year > _LAST_UTC_YEAR:
        moment = moment.replace(year=moment.year - 100)
    return moment.replace(tzinfo=UTC).timestamp()


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements that lie one after the other in these bytes, as tag and content."""
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:  # then it is how many bytes the length takes
            size = length & 0x7F
            length, at = int.from_bytes(data[at : at + size]), at + size
        if at + length > len(data):
            raise ValueError("an element ends after its bytes")
        yield tag, data[at : at + length]
        at += length
