"""Which backends hold a content, as far as outcomes show it.

A store that succeeds makes a holder. A holder whose last two retrievals of a hash failed is
doubtful: it is the last to be asked for it. Either the backend is down, or it has lost the
object. If it succeeds with anything afterwards, it is not down, and so no longer a holder.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from routing.core.linking import LinkedOutcome
from routing.core.model import Fault, Operation, Query

MAX_HASHES = 100_000
"""Hashes whose holders are kept, about 40 MB at most. With fewer, a retrieval of an object
stored long ago is offered backends that do not have it. Beyond it, the least recently
used hash is evicted."""

MAX_HOLDERS = 32
"""Holders kept for one hash; more copies than this improve no decision."""

FAILED_RETRIEVALS = 2
"""The contract's number of failed retrievals in a row that make a holder doubtful. One may be
chance; every one more is a failed call."""


class Failures(NamedTuple):
    """Retrievals of one hash from one backend that failed in a row: how many, at most two; when the
    last of them did; and how many successes of the backend had been noted by then. `lost` means that
    the backend itself says that it does not have the content."""

    in_a_row: int
    at: float
    successes: int
    lost: bool = False


class Holding(NamedTuple):
    """The backends known to hold a content, and those of them, or former ones, that are the
    last to be asked for it."""

    known: Collection[str]
    doubtful: Collection[str]


UNKNOWN = Holding((), ())
"""Nothing is known of who holds a content."""


class Holders:
    """{content hash: its holders}; bounded, the least recently used hash is evicted."""

    def __init__(self, *, max_hashes: int = MAX_HASHES) -> None:
        self._max_hashes = max_hashes
        # {hash: {backend: when it was last known to hold it}}, most recently used hash last.
        # It includes backends that have lost it, so that a retrieval can make them holders again.
        self._holders: OrderedDict[str, dict[str, float]] = OrderedDict()
        # {hash: {holder: its failed retrievals}}, only for hashes of which some failed.
        self._failures: dict[str, dict[str, Failures]] = {}
        # {backend: (successes noted, when the latest of them happened)}; bounded by backends.
        self._successes: dict[str, tuple[int, float]] = {}

    def __repr__(self) -> str:
        return f"Holders(hashes={len(self._holders)}, doubted={len(self._failures)})"

    def __len__(self) -> int:
        return len(self._holders)

    def of(self, content_hash: str) -> Holding:
        """Who holds the content."""
        backends = self._holders.get(content_hash)
        if backends is None:
            return UNKNOWN
        failures = self._failures.get(content_hash)
        if failures is None:
            return Holding(backends, ())
        lost = {name for name, failed in failures.items() if self._lost(name, failed)}
        doubtful = {
            name for name, failed in failures.items() if failed.in_a_row >= FAILED_RETRIEVALS or failed.lost
        }
        return Holding([name for name in backends if name not in lost], doubtful)

    def asked_by(self, query: Query) -> Holding:
        """Who holds the content that the query is to retrieve; nothing is known for a store."""
        if query.operation is not Operation.RETRIEVE or not query.content_hash:
            return UNKNOWN
        return self.of(query.content_hash)

    def with_operation(self, link: LinkedOutcome) -> LinkedOutcome:
        """The outcome of an unknown operation as a retrieval, where it says that a known holder
        does not have the content: it was not asked to store it."""
        if link.operation is not None or link.outcome.fault != Fault.CONTENT or link.outcome.success:
            return link
        if link.outcome.backend_id not in self.of(link.content_hash).known:
            return link
        return link._replace(operation=Operation.RETRIEVE)

    def note_outcome(self, link: LinkedOutcome) -> None:
        """Adds what the outcome says about who holds its content."""
        outcome, content_hash, at = link.outcome, link.content_hash, link.at
        retrieved = link.operation is Operation.RETRIEVE
        if outcome.success:
            self.note_success(outcome.backend_id, at=at)
            # An outcome matched by hash alone may report a store that was done without a decision.
            if content_hash and retrieved and outcome.request_id:
                self.note_retrieved(content_hash, outcome.backend_id, at=at)
            elif content_hash:
                self.note_holder(content_hash, outcome.backend_id, at=at)
        elif retrieved and content_hash and outcome.fault != Fault.CALLER:
            lost = outcome.fault == Fault.CONTENT
            self.note_failed_retrieval(content_hash, outcome.backend_id, at=at, lost=lost)

    def note_success(self, backend_id: str, *, at: float) -> None:
        """The backend succeeded with some operation."""
        count, last = self._successes.get(backend_id, (0, at))
        self._successes[backend_id] = count + 1, max(last, at)

    def note_holder(self, content_hash: str, backend_id: str, *, at: float) -> None:
        """Adds the backend to the holders of the content."""
        backends = self._holders.setdefault(content_hash, {})
        self._holders.move_to_end(content_hash)
        backends[backend_id] = max(at, backends.get(backend_id, at))
        self._forget_failures(content_hash, backend_id)
        if len(backends) > MAX_HOLDERS:
            oldest = min(backends, key=lambda name: (backends[name], name))
            del backends[oldest]
            self._forget_failures(content_hash, oldest)
        if len(self._holders) > self._max_hashes:
            evicted, _ = self._holders.popitem(last=False)
            self._failures.pop(evicted, None)

    def note_retrieved(self, content_hash: str, backend_id: str, *, at: float) -> None:
        """A retrieval succeeded. Where holders are remembered, the backend is one of them; where
        none is, others that have the content too must stay eligible."""
        if content_hash in self._holders:
            self.note_holder(content_hash, backend_id, at=at)

    def note_failed_retrieval(self, content_hash: str, backend_id: str, *, at: float, lost: bool) -> None:
        """A retrieval from a holder failed; `lost` means that it does not have the content."""
        if backend_id not in self._holders.get(content_hash, ()):
            return
        failures = self._failures.setdefault(content_hash, {})
        before = failures.get(backend_id, Failures(0, at, 0))
        if before.in_a_row < FAILED_RETRIEVALS:
            noted = self._successes.get(backend_id, (0, at))[0]
            before = Failures(before.in_a_row + 1, max(before.at, at), noted, before.lost)
        failures[backend_id] = before._replace(lost=lost or before.lost)

    def snapshot(self) -> dict[str, Any]:
        """All holders and failed retrievals, as JSON-able values."""
        return {
            "holders": {name: dict(backends) for name, backends in self._holders.items()},
            "failures": {
                name: {backend: [*failed] for backend, failed in failures.items()}
                for name, failures in self._failures.items()
            },
            "successes": {backend: [*counted] for backend, counted in self._successes.items()},
        }

    def merge(self, snapshot: Mapping[str, Any], *, known: Callable[[str], bool]) -> None:
        """Adds the holders of a snapshot that are `known` backends; what happened later wins."""
        for name, backends in snapshot["holders"].items():
            for backend_id, at in backends.items():
                if known(backend_id):
                    self._merge(name, backend_id, at, snapshot["failures"].get(name, {}).get(backend_id))
        for backend_id, (count, at) in snapshot["successes"].items():
            mine = self._successes.get(backend_id, (0, at))
            self._successes[backend_id] = max(mine[0], count), max(mine[1], at)

    def _merge(self, content_hash: str, backend_id: str, at: float, failed: list[Any] | None) -> None:
        held = self._holders.get(content_hash, {}).get(backend_id)
        mine = self._failures.get(content_hash, {}).get(backend_id)
        theirs = None if failed is None else Failures(*failed)
        self.note_holder(content_hash, backend_id, at=at)
        # A side without failures beats an earlier failure of the other: it knows of a success.
        later = max((one for one in (mine, theirs) if one is not None), default=None, key=lambda one: one.at)
        if later is not None and (
            (mine is not None or held is None or held < later.at)
            and (theirs is not None or at < later.at)
            and content_hash in self._holders
            and backend_id in self._holders[content_hash]
        ):
            self._failures.setdefault(content_hash, {})[backend_id] = later

    def _lost(self, backend_id: str, failed: Failures) -> bool:
        if failed.lost:
            return True
        count, last = self._successes.get(backend_id, (0, failed.at))
        return failed.in_a_row >= FAILED_RETRIEVALS and count > failed.successes and last >= failed.at

    def _forget_failures(self, content_hash: str, backend_id: str) -> None:
        failures = self._failures.get(content_hash)
        if failures is not None and failures.pop(backend_id, None) is not None and not failures:
            del self._failures[content_hash]
