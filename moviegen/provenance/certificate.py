"""What manifests are signed with: a key and certificate of your own, or a development certificate that nobody trusts.

The development certificate is made anew in memory by each process and its key is never written: it shows that a file
has not changed since, not who made it, and says so in its name. Real keys are given by path, never kept here.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from moviegen.config import UserError

DEVELOPMENT_NAME = "moviegen development certificate - UNTRUSTED"
DAYS = 7  # that a development certificate holds


@dataclass(frozen=True)
class Signer:
    """A private key and its certificate chain, PEM, the leaf first."""

    algorithm: str  # as C2PA names it
    chain: bytes
    key: bytes
    name: str  # of whom the certificate is for
    development: bool


def load_signer(certificate: Path, key: Path) -> Signer:
    """A signer of two PEM files. Raises UserError where one cannot be read, or they do not belong together."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    chain, secret = _content(certificate, "certificate"), _content(key, "key")
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
    except (ValueError, IndexError) as error:
        raise UserError(f"certificate {certificate} is no PEM certificate chain") from error
    try:
        private = serialization.load_pem_private_key(secret, None)
    except TypeError as error:
        raise UserError(f"key {key} is protected by a password; give one without") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"key {key} is no PEM private key") from error
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise UserError(f"key {key} does not belong to certificate {certificate}")
    until = leaf.not_valid_after_utc
    if until < datetime.datetime.now(datetime.UTC):
        raise UserError(f"certificate {certificate} expired on {until:%Y-%m-%d}")
    plain = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Signer(_algorithm(private, key), chain, plain, leaf.subject.rfc4514_string(), False)


def _content(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read: {error.strerror}") from error


def _algorithm(private: Any, path: Path) -> str:
    """The name of the signature that a key makes."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in curves:
        return curves[private.curve.name]
    raise UserError(f"key {path}: C2PA signs with P-256, P-384, P-521, Ed25519 or RSA")


@cache
def development_signer() -> Signer:
    """This process's own: a certificate authority of its own, and a leaf that it signed."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = _name(f"{DEVELOPMENT_NAME} (root)")
    root = _certificate(root_name, root_name, root_key.public_key(), root_key.public_key(), True)
    leaf = _certificate(_name(DEVELOPMENT_NAME), root_name, key.public_key(), root_key.public_key(), False)
    signed = [one.sign(root_key, hashes.SHA256()) for one in (leaf, root)]
    assert all(isinstance(one, x509.Certificate) for one in signed)
    chain = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in signed)
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Signer("es256", chain, plain, DEVELOPMENT_NAME, True)


def _name(common: str) -> Any:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    names = ((NameOID.ORGANIZATION_NAME, "moviegen development, UNTRUSTED"), (NameOID.COMMON_NAME, common))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in names])


def _certificate(subject: Any, issuer: Any, key: Any, issuer_key: Any, is_root: bool) -> Any:
    """An unsigned certificate of the profile that C2PA asks for."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    now = datetime.datetime.now(datetime.UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
    ) | {"encipher_only": False, "decipher_only": False}
    usage |= {"digital_signature": not is_root, "key_cert_sign": is_root, "crl_sign": is_root}
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(is_root, 0 if is_root else None), True)
        .add_extension(x509.KeyUsage(**usage), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), False)
    )
    if not is_root:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
    return builder
