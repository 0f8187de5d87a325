"""What counts as an application, and how it is identified."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from types import SimpleNamespace
from typing import Any

import pytest

from limetask import Application, ApplicationError
from limetask.application import identifier_of

MAX_IDENTIFIER_BYTES = 255


class PlatformApplication:
    """As a platform has it: the identifier is a property of something bigger."""

    @property
    def identifier(self) -> str:
        return "shop"


class HugeObject:
    def __repr__(self) -> str:
        return "x" * 10_000


@pytest.mark.parametrize(
    ("app", "identifier"),
    [
        ("shop", "shop"),
        (Application("shop"), "shop"),
        (PlatformApplication(), "shop"),
        (SimpleNamespace(identifier="shop"), "shop"),
        ("Müller & Söhne", "Müller & Söhne"),
        ("shop/eu:1.2", "shop/eu:1.2"),
        ("a" * MAX_IDENTIFIER_BYTES, "a" * MAX_IDENTIFIER_BYTES),
    ],
)
def test_a_name_or_an_object_with_an_identifier_is_an_application(app: object, identifier: str) -> None:
    """A name stands for itself, and any object is known by its `identifier`."""
    assert identifier_of(app) == identifier


@pytest.mark.parametrize(
    "app", [None, 3, b"shop", object(), ["shop"], SimpleNamespace(identifier=3), SimpleNamespace(name="shop")]
)
def test_anything_else_is_no_application(app: object) -> None:
    """What is neither a name nor has a text for its identifier is refused, and the message shows it."""
    with pytest.raises(ApplicationError, match="is a name or an object with a text `identifier`") as caught:
        identifier_of(app)
    assert repr(app)[:40] in str(caught.value)


@pytest.mark.parametrize("name", ["", " ", " shop", "shop ", "a\nb", "a\x00b", "a\tb", "\ud800", "a\u2028b"])
@pytest.mark.parametrize("wrap", [str, Application])
def test_an_identifier_is_printable_text(name: str, wrap: Any) -> None:
    """An identifier that is empty, has spaces around it or cannot be printed is refused."""
    with pytest.raises(ApplicationError, match="printable"):
        identifier_of(wrap(name))


@pytest.mark.parametrize("name", ["a" * (MAX_IDENTIFIER_BYTES + 1), "ä" * (MAX_IDENTIFIER_BYTES // 2 + 1)])
def test_an_identifier_has_a_longest_length_in_bytes(name: str) -> None:
    """An identifier of more than 255 bytes in UTF-8 is refused."""
    with pytest.raises(ApplicationError, match=f"longer than {MAX_IDENTIFIER_BYTES} bytes"):
        identifier_of(name)


def test_the_message_about_a_wrong_application_is_short() -> None:
    """An object with an endless representation does not make an endless message."""
    with pytest.raises(ApplicationError) as caught:
        identifier_of(HugeObject())
    assert len(str(caught.value)) < 250


def test_an_application_cannot_be_changed() -> None:
    """The default application is a frozen value."""
    with pytest.raises(FrozenInstanceError):
        Application("shop").identifier = "other"  # type: ignore[misc]
    assert Application("shop") == Application("shop")
