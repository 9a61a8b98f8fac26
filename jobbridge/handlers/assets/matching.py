"""Which drafts are assets that are there already. Pure.

A serial number, a tag or a MAC address is one device's in the whole tenant; a host name, and a name that is nearly the
same, is one device's at one client. They are tried in this order; the first that agrees decides. A name alone is weak:
it counts only if nothing else says that the two are different devices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from uuid import UUID

from jobbridge.handlers.assets.models import AssetField, AssetKind, Draft, Duplicate, Known
from jobbridge.handlers.assets.names import BLOCK_LIMIT, Spelling, blocks_of, similarity, spelling_of

_Key = tuple[AssetField, str, str]

#: Two devices if these are known of both and differ.
_TELLS_APART = (AssetField.SERIAL_NUMBER, AssetField.ASSET_TAG, AssetField.MAC_ADDRESS, AssetField.HOST_NAME)

_WORDS = {
    AssetField.SERIAL_NUMBER: "serial number",
    AssetField.ASSET_TAG: "asset tag",
    AssetField.MAC_ADDRESS: "MAC address",
    AssetField.HOST_NAME: "host name",
}


class Matcher:
    """Knows the assets that could be those of some drafts, and each that was made of one.

    Args:
        name_similarity: In percent; None: names are not compared.
    """

    def __init__(self, name_similarity: int | None) -> None:
        self._name_similarity = name_similarity
        self._by_key: dict[_Key, Known] = {}
        self._by_block: dict[tuple[str, int], list[tuple[Spelling, Known]]] = defaultdict(list)
        self._seen: set[UUID] = set()

    def add(self, known: Known) -> None:
        """Learn of an asset."""
        if known.asset_id in self._seen:
            return
        self._seen.add(known.asset_id)
        for key in _keys(known):
            self._by_key.setdefault(key, known)
        if self._name_similarity is not None:
            spelling = spelling_of(known.name)
            for block in blocks_of(spelling):
                in_block = self._by_block[known.client_id, block]
                if len(in_block) < 2 * BLOCK_LIMIT:
                    in_block.append((spelling, known))

    def add_all(self, known: Iterable[Known]) -> None:
        for one in known:
            self.add(one)

    def duplicate(self, draft: Draft) -> Duplicate | None:
        """Give what says that the draft's asset is there already; None: it is new."""
        for key in _keys(draft):
            known = self._by_key.get(key)
            if known is not None:
                return _by_identifier(draft, known, key[0])
        return self._by_name(draft)

    def _by_name(self, draft: Draft) -> Duplicate | None:
        if self._name_similarity is None:
            return None
        spelling = spelling_of(draft.name)
        candidates = (
            (similarity(spelling, other), known)
            for block in blocks_of(spelling)
            for other, known in self._by_block.get((draft.client_id, block), ())
            if not _tell_apart(draft, known)
        )
        score, best = max(candidates, key=lambda candidate: candidate[0], default=(0, None))
        if best is None or score < self._name_similarity:
            return None
        reason = f"the name {draft.name!r} is to {score} % that of {_described(best)}"
        return Duplicate(row=draft.row, asset_id=best.asset_id, matched_by=AssetField.NAME, reason=reason)


def _keys(asset: Draft | Known) -> Iterable[_Key]:
    for field in (AssetField.SERIAL_NUMBER, AssetField.ASSET_TAG, AssetField.MAC_ADDRESS):
        value = getattr(asset, field)
        if value is not None:
            yield field, "", value
    if asset.host_name is not None:
        yield AssetField.HOST_NAME, asset.client_id, asset.host_name


def _by_identifier(draft: Draft, known: Known, field: AssetField) -> Duplicate:
    reason = f"the {_WORDS[field]} {getattr(draft, field)!r} is that of {_described(known)}"
    return Duplicate(row=draft.row, asset_id=known.asset_id, matched_by=field, reason=reason)


def _described(known: Known) -> str:
    if known.import_row is not None:
        return f"{known.name!r} in row {known.import_row}"
    return f"{known.name!r} of client {known.client_id!r}, which was there before"


def _tell_apart(draft: Draft, known: Known) -> bool:
    if AssetKind.OTHER not in (draft.kind, known.kind) and draft.kind != known.kind:
        return True
    pairs = ((getattr(draft, field), getattr(known, field)) for field in _TELLS_APART)
    return any(ours is not None and theirs is not None and ours != theirs for ours, theirs in pairs)
