"""Signatures of messages: HMAC-SHA256 with keys that are shared by those who may have work done.

The first key signs and all of them verify, so that a key can be replaced without a pause: add the new one behind the
old one everywhere, then put it first, then take the old one away. No key is ever part of a message of ours.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field

from limetask.errors import MessageRefusedError
from limetask.settings import Settings, signing_secrets

_DIGEST = "sha256"
_KEY_ID_LENGTH = 8
_LENGTH_BYTES = 8
# Nothing else that is ever made with the same secret is taken for one of these.
_KEY_ID_PURPOSE = b"limetask key id"
_MESSAGE_PURPOSE = b"limetask message"


class Signer:
    """Signs what a message says, and verifies it. Without keys it signs nothing, and accepts everything."""

    def __init__(self, secrets: Iterable[bytes] = ()) -> None:
        self._keys = tuple(_Key.of(secret) for secret in secrets)
        self.has_keys = bool(self._keys)
        """False if nothing is signed: then a message's parts need not be put together."""

    @classmethod
    def of(cls, settings: Settings) -> Signer:
        """Return the signer with the keys of these settings."""
        return cls(signing_secrets(settings.signing_keys))

    def sign(self, parts: Iterable[bytes]) -> str | None:
        """Return the signature of a message that says `parts`; None without keys."""
        return self._keys[0].signature_of(_joined(parts)) if self._keys else None

    def verify(self, parts: Iterable[bytes], signature: object) -> None:
        """Return if `signature` was made for exactly these parts with one of the keys, or if there are no keys.

        Raises MessageRefusedError otherwise.
        """
        if not self._keys:
            return
        if isinstance(signature, bytes):  # as some clients send texts
            signature = signature.decode("ascii", "replace")
        if not isinstance(signature, str) or not signature.isascii():
            raise MessageRefusedError(
                "unsigned: LIMETASK_SIGNING_KEYS is set here, and the message has no signature; was its sender "
                "started without the keys?"
            )
        signed = _joined(parts)
        keys = [key for key in self._keys if signature.startswith(f"{key.id}:")]
        if not keys:
            raise MessageRefusedError(
                f"signed with another key, {signature[:_KEY_ID_LENGTH]!r}, which is not in LIMETASK_SIGNING_KEYS here"
            )
        if not any(hmac.compare_digest(key.signature_of(signed), signature) for key in keys):
            raise MessageRefusedError("altered: the message is not what its sender signed")


@dataclass(frozen=True, slots=True)
class _Key:
    """A secret and the short name under which its signatures go, which tells nothing about it."""

    id: str
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: bytes) -> _Key:
        return cls(hmac.digest(secret, _KEY_ID_PURPOSE, _DIGEST).hex()[:_KEY_ID_LENGTH], secret)

    def signature_of(self, signed: bytes) -> str:
        return f"{self.id}:{hmac.digest(self.secret, signed, _DIGEST).hex()}"


def _joined(parts: Iterable[bytes]) -> bytes:
    """Put the parts together so that no other parts give the same bytes: each has its length before it."""
    lengths_and_parts = (piece for part in parts for piece in (len(part).to_bytes(_LENGTH_BYTES), part))
    return b"".join((_MESSAGE_PURPOSE, *lengths_and_parts))


UNSIGNED = Signer()
"""Signs nothing, and accepts everything."""
