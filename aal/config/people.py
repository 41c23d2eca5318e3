"""The settings of the page where people label."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from aal.config.fields import Group, Name, Path, listed

PersonName = Annotated[str, Field(pattern=r"^\w[\w .@'-]*$", max_length=60)]
Names = Annotated[list[PersonName], Field(max_length=1000), BeforeValidator(listed)]


class PeopleSettings(Group):
    """People who label in a browser; there is a page where somebody is named."""

    annotators: Names = Field([], description="names of those who label; each has a link of its own")
    supervisors: Names = Field(
        [], description="names of those who may also watch the run, invite others, correct, pause and stop"
    )
    host: Name = Field(
        "127.0.0.1", description="address to serve the page at; 0.0.0.0: every one of this machine (docs/security.md)"
    )
    port: Annotated[int, Field(ge=1, le=65535)] = Field(8765, description="port to serve the page at")
    address: Annotated[str, Field(pattern=r"^https?://[\w.:\[\]-]+$", max_length=200)] | None = Field(
        None, description="what people open, as https://label.example.org, where a proxy stands before the page"
    )
    tls_certificate: Path | None = Field(None, description="PEM file of a certificate, for https without a proxy")
    tls_key: Path | None = Field(None, description="PEM file of its key")
    images_ahead: Annotated[int, Field(ge=0, le=20)] = Field(
        2, description="images that a page has fetched beside the one that it shows"
    )
    held_out: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        200,
        description="images set aside at random for testing and validation where no image is labelled at the start, at "
        "most a fifth of all; people label them among the first, and nothing is trained on them",
    )

    @property
    def label(self) -> bool:
        """Whether anybody labels in a browser."""
        return bool(self.annotators or self.supervisors)
