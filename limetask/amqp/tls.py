"""TLS on the way to the broker: whom it is checked against, and what we show it."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

from limetask.errors import ConfigurationError
from limetask.settings import Settings

_FILE_SETTINGS = ("broker_ca", "broker_certificate", "broker_key")


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Return what always checks the broker's certificate and its name: no setting can turn that off.

    Raises ConfigurationError for a file that is missing or is not what it should be.
    """
    context = _context_that_trusts(settings.broker_ca)
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    if settings.broker_certificate:
        _load_own_certificate(context, settings.broker_certificate, settings.broker_key)
    elif settings.broker_key:
        raise ConfigurationError("LIMETASK_BROKER_KEY is set without its certificate, LIMETASK_BROKER_CERTIFICATE")
    return context


def check_no_tls_is_meant(settings: Settings) -> None:
    """Raise ConfigurationError if settings for TLS stand beside an URL without: somebody believes in it."""
    for name in _FILE_SETTINGS:
        if getattr(settings, name):
            raise ConfigurationError(
                f"LIMETASK_{name.upper()} is set, and LIMETASK_BROKER_URL starts with amqp://, which is not "
                "encrypted: make it amqps://, usually with port 5671"
            )


def _context_that_trusts(authorities: str) -> ssl.SSLContext:
    if not authorities:
        return ssl.create_default_context()
    with _explained("LIMETASK_BROKER_CA", authorities, "certificates in PEM form"):
        return ssl.create_default_context(cafile=authorities)


def _load_own_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    _check_readable("LIMETASK_BROKER_CERTIFICATE", certificate)
    variable, path = ("LIMETASK_BROKER_KEY", key) if key else ("LIMETASK_BROKER_CERTIFICATE", certificate)
    with _explained(variable, path, "the certificate's private key in PEM form, without a passphrase"):
        # With a password, though it is none, OpenSSL does not ask for one on the terminal.
        context.load_cert_chain(certificate, key or None, password="")


@contextlib.contextmanager
def _explained(variable: str, path: str, content: str) -> Iterator[None]:
    _check_readable(variable, path)
    try:
        yield
    except ssl.SSLError as exc:
        raise ConfigurationError(f"{variable}: {path} must hold {content} ({exc.reason or exc})") from exc


def _check_readable(variable: str, path: str) -> None:
    try:
        Path(path).open("rb").close()
    except OSError as exc:
        raise ConfigurationError(f"{variable}: cannot read {path}: {exc.strerror}") from exc
