"""The known backends; which are eligible for a query, and why the others are not."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from routing.core.geography import Place, distances_km, place
from routing.core.model import Backend, Location, Operation, Query
from routing.core.resemblance import Resemblances
from routing.errors import InvalidArgument, LimitReached

MAX_TAGS_LISTED = 8
"""Tags listed in the reason why a backend is not eligible. A request may require hundreds of
thousands; listing them for each backend would take minutes."""


class Mention(NamedTuple):
    """A name that a client used for the first time, and the configured one that it resembles."""

    name: str
    resembles: str | None


class Registry:
    """Configured profiles, and neutral profiles for discovered names, which only clients use.

    At most `max_backends` in all; a discovered name is never removed. `mentions` are the names
    admitted since whoever logs them has last emptied the list.
    """

    def __init__(self, backends: Iterable[Backend], *, discover: bool, max_backends: int) -> None:
        self._discover = discover
        self._max_backends = max_backends
        self._backends: dict[str, Backend] = {}
        self._places: dict[str, Place] = {}
        for backend in backends:
            if backend.id in self._backends:
                raise InvalidArgument("backends", backend.id, "ids that are unique")
            self._add(backend)
        self._configured = tuple(self._backends.values())
        self._resemblances = Resemblances(self._backends)
        self.mentions: list[Mention] = []

    def __repr__(self) -> str:
        discovered = sum(backend.discovered for backend in self._backends.values())
        return f"Registry(backends={len(self._backends)}, discovered={discovered})"

    @property
    def backends(self) -> tuple[Backend, ...]:
        """All backends: the configured ones, then the discovered ones in order of discovery."""
        return tuple(self._backends.values())

    def find(self, backend_id: str) -> Backend | None:
        """The backend with this id, or None."""
        return self._backends.get(backend_id)

    def admit(self, field: str, names: Collection[str]) -> None:
        """Adds the names that are not known yet: all of them or, if one cannot be added, none.

        Raises InvalidArgument if discovery is off, LimitReached if there is no room;
        `field` is the request's field that held the names.
        """
        new = [name for name in names if name not in self._backends]
        if not new:
            return
        if not self._discover:
            valid = "the id of a configured backend (discovery is off)"
            nearest = self._resemblances.nearest(new[0])
            raise InvalidArgument(
                field, new[0], f"{valid}; the nearest is {nearest[0]!r}" if nearest else valid
            )
        new = list(dict.fromkeys(new))
        if len(self._backends) + len(new) > self._max_backends:
            similar = self._resemblances.similar(new[0])
            raise LimitReached(
                f"{field}: {new[0]!r} is not known, and the limit of {self._max_backends} backends"
                f" leaves room for {self._max_backends - len(self._backends)} of {len(new)} new ones"
                + (f"; it resembles the configured {similar!r}" if similar else "")
            )
        for name in new:
            self._add(Backend(id=name, discovered=True))
            self.mentions.append(Mention(name, self._resemblances.similar(name)))

    def eligible(self, query: Query, holders: Collection[str]) -> tuple[list[Backend], dict[str, str]]:
        """The backends eligible for the query, and {other candidate: why it is not}.

        Discovered ones are candidates only for queries that name them: a name may be mistyped.
        `holders` are the backends known to hold the content; they restrict the choice where the
        query does not. Those that are no candidates count as none.
        """
        candidates: Sequence[Backend] = self._configured
        if query.available_backends:
            candidates = [self._backends[name] for name in dict.fromkeys(query.available_backends)]
            holders = ()
        elif query.operation is not Operation.RETRIEVE:
            holders = ()
        elif holders:
            holders = {backend.id for backend in candidates if backend.id in holders}
        eligible: list[Backend] = []
        ineligible: dict[str, str] = {}
        for backend in candidates:
            reason = _reason_ineligible(backend, query, holders)
            if reason is None:
                eligible.append(backend)
            else:
                ineligible[backend.id] = reason
        return eligible, ineligible

    def distances_km(self, location: Location | None, backends: Iterable[Backend]) -> list[float | None]:
        """The distance from the client to each backend; None if either place is unknown."""
        if location is None or location.latitude is None or location.longitude is None:
            return [None for _ in backends]
        places = self._places
        client = place(location.latitude, location.longitude)
        return distances_km(client, [places.get(backend.id) for backend in backends])

    def snapshot(self) -> list[str]:
        """The discovered names; profiles come from the configuration."""
        return [backend.id for backend in self._backends.values() if backend.discovered]

    def merge(self, names: Iterable[Any]) -> None:
        """Adds names that another server discovered, as far as there is room; none if
        discovery is off."""
        for name in names if self._discover else ():
            if name not in self._backends and len(self._backends) < self._max_backends:
                self._add(Backend(id=name, discovered=True))

    def _add(self, backend: Backend) -> None:
        self._backends[backend.id] = backend
        if backend.latitude is not None and backend.longitude is not None:
            self._places[backend.id] = place(backend.latitude, backend.longitude)


def discovered_among(backends: Iterable[Backend]) -> frozenset[str]:
    """The names of those that are not configured."""
    return frozenset(backend.id for backend in backends if backend.discovered)


def _reason_ineligible(backend: Backend, query: Query, holders: Collection[str]) -> str | None:
    """Why the backend is not eligible for the query, or None if it is."""
    if not backend.enabled:
        return "disabled"
    if backend.id in query.exclude_backends:
        return "excluded by the request"
    if not query.require_tags <= backend.tags:
        if len(query.require_tags) > MAX_TAGS_LISTED:
            return f"lacks some of the {len(query.require_tags):,} tags asked for"
        return f"lacks the tags {', '.join(sorted(query.require_tags - backend.tags))}"
    if backend.max_object_bytes is not None and query.size_bytes > backend.max_object_bytes:
        return f"takes objects of at most {backend.max_object_bytes:,} bytes, not {query.size_bytes:,}"
    if holders and backend.id not in holders:
        return "is not known to hold the content"
    return None
