"""A certificate authority for a trial, and certificates of it: for members of the mesh, and for who calls them.

A site with an authority of its own needs none of this: its certificates must carry MEMBER_NAME beside addresses.
"""

import ipaddress
import platform
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from headrace.mesh.private_files import write_private
from headrace.mesh.tls import MEMBER_NAME

ALWAYS = (MEMBER_NAME, "localhost", "127.0.0.1", "::1")
_BACK = timedelta(minutes=5)  # clocks of a mesh differ
Key = ec.EllipticCurvePrivateKey


def make(directory: Path, hosts: Sequence[str] = (), days: int = 365) -> None:
    """ca, member (serves and calls) and client (calls alone), each as .crt and .key. An authority that is there
    stays."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca, ca_key = _authority(directory, days)
    names = tuple(dict.fromkeys((*ALWAYS, platform.node(), *hosts)))
    both = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    _issue(directory, "member", ca, ca_key, names, both, days)
    _issue(directory, "client", ca, ca_key, (), (ExtendedKeyUsageOID.CLIENT_AUTH,), days)


def _authority(directory: Path, days: int) -> tuple[x509.Certificate, Key]:
    crt, key_file = directory / "ca.crt", directory / "ca.key"
    if crt.exists() and key_file.exists():
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        assert isinstance(key, Key)
        return x509.load_pem_x509_certificate(crt.read_bytes()), key
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Headrace trial authority")
    builder = (
        _builder(name, name, key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    made = builder.sign(key, hashes.SHA256())
    _write(directory, "ca", made, key)
    return made, key


def _issue(
    directory: Path,
    name: str,
    ca: x509.Certificate,
    ca_key: Key,
    hosts: Sequence[str],
    usages: Sequence[x509.ObjectIdentifier],
    days: int,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_name(f"headrace {name}"), ca.subject, key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_general, hosts))), critical=False)
    _write(directory, name, builder.sign(ca_key, hashes.SHA256()), key)


def _builder(subject: x509.Name, issuer: x509.Name, key: Key, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACK)
        .not_valid_after(now + timedelta(days=days))
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(directory: Path, name: str, certificate: x509.Certificate, key: Key) -> None:
    """The key first, for its owner alone; each file in one step, for processes that read them again."""
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(directory / f"{name}.key", private)
    part = directory / f"{name}.crt.part"
    part.write_bytes(certificate.public_bytes(pem))
    part.replace(directory / f"{name}.crt")
