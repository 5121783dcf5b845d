"""Whether what is chosen for events in doubt fits together, for the defaults and for every override."""

from collections.abc import Iterator

from replicator.config import Config, LimitsConfig, LinkDefaults
from replicator.config_yaml import Document, Path, Problem, dotted
from replicator.core.in_doubt import DATING_ERROR_MS

CHOICES = {"in_doubt", "in_doubt_beyond"}


def in_doubt(document: Document, config: Config) -> Iterator[Problem]:
    """Problems of lifetimes, and of choices that would be obeyed by nobody."""
    yield from _lifetime(document, ("link_defaults",), config.link_defaults, config.limits)
    yield from _choices(document, ("link_defaults",), config.link_defaults)
    for index, link in enumerate(config.links):
        given = link.model_dump(include=link.model_fields_set & LinkDefaults.model_fields.keys())
        if "request_lifetime_s" in given:
            yield from _lifetime(document, ("links", index), link, config.limits)
        if CHOICES & given.keys():
            merged = LinkDefaults(**(config.link_defaults.model_dump() | given))
            yield from _choices(document, ("links", index), merged)


def _lifetime(document: Document, path: Path, link: LinkDefaults, limits: LimitsConfig) -> Iterator[Problem]:
    lifetime_s, field = link.request_lifetime_s, (*path, "request_lifetime_s")
    # Where the lifetime is the default, what does not fit to it is what stands in the file.
    is_given = "request_lifetime_s" in link.model_fields_set
    error_s = DATING_ERROR_MS / 1000
    least_s = limits.request_timeout_s + error_s
    if lifetime_s < least_s:
        yield Problem(
            document.value_place(field if is_given else ("limits", "request_timeout_s")),
            f"{dotted(field)}: {lifetime_s:g} s are over before a slow request is given up; "
            f"make it {least_s:g} or more (limits.request_timeout_s and {error_s:g} s), "
            "or make limits.request_timeout_s shorter",
        )
    if lifetime_s > limits.signature_window_s:
        window = f"{limits.signature_window_s:g}"
        yield Problem(
            document.value_place(field if is_given else ("limits", "signature_window_s")),
            f"{dotted(field)}: a peer takes no request for longer than limits.signature_window_s ({window}); "
            f"make it {window} or less",
        )


def _choices(document: Document, path: Path, link: LinkDefaults) -> Iterator[Problem]:
    if link.in_doubt == "resend" and link.in_doubt_beyond == "hold":
        field = (*path, "in_doubt_beyond")
        yield Problem(
            document.value_place(field),
            f"{dotted(field)}: 'hold' holds nothing where in_doubt is 'resend'; "
            "write 'in_doubt: verify', or leave it out",
        )
