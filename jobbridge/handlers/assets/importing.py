"""Import the rows of a file, a batch at a time.

One transaction writes the assets of a batch, what became of each of its rows, and the last row's number. So a row has
an outcome exactly if what it says is so, and whoever goes on knows where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

from jobbridge.handlers.assets.columns import Columns, is_storable, read_row
from jobbridge.handlers.assets.errors import FileUnreadable, NothingImported, RowsContested, UnknownFile
from jobbridge.handlers.assets.inventory import (
    add_assets,
    existing_clients,
    lock_assets,
    possible_duplicates,
)
from jobbridge.handlers.assets.matching import Matcher
from jobbridge.handlers.assets.models import (
    AssetField,
    Created,
    Draft,
    Duplicate,
    ImportAssets,
    Invalid,
    Known,
    Outcome,
    Row,
)
from jobbridge.handlers.assets.outcomes import (
    Progress,
    add_outcomes,
    begin_import,
    finish_import,
    first_reason,
    keep_report,
    lock_progress,
)
from jobbridge.handlers.assets.reading import open_table
from jobbridge.handlers.files import ASSET_UPLOAD, StoredFile, find_file, open_file
from jobbridge.handlers.sql import Connection, Transaction

#: Rows that one transaction writes: enough that the commits do not count, few enough that a cancel is soon seen.
BATCH = 500

#: How often a batch is decided anew because another writer came in between.
ROUNDS = 5

#: Called after each batch with the share that is read (0 to 1) and how far the import is; may raise to stop it.
OnProgress = Callable[[float, Progress], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Import:
    """What one job imports.

    Attributes:
        transaction: Opens a transaction.
        batch: Rows that one transaction writes.
    """

    transaction: Transaction
    tenant: str
    job_id: str
    data: ImportAssets
    batch: int = BATCH

    def upload(self) -> StoredFile:
        """Give the file.

        Raises:
            UnknownFile: There is none.
        """
        with self.transaction() as connection:
            file = find_file(connection, self.tenant, self.data.file_id)
        if file is None or file.kind != ASSET_UPLOAD:
            raise UnknownFile.about(self.data.file_id)
        return file

    def import_rows(self, file: StoredFile, on_progress: OnProgress) -> Progress:
        """Import each row that has no outcome yet.

        Raises:
            FileUnreadable: The file is damaged; what comes before that is imported.
            UnknownColumn: The columns do not fit the mapping.
            RowsContested: Other writers came in between, again and again.
        """
        with self.transaction() as connection:
            progress = begin_import(connection, self.tenant, self.job_id, file.file_id)
        with open_file(self.transaction, self.tenant, file) as content:
            table = open_table(file, content, self.data)
            rows = table.rows()
            columns = self._columns(file, rows)
            for batch in _batches(rows, self.batch):
                if batch[-1].number > progress.last_row:
                    progress = self._import_batch(batch, columns)
                    on_progress(table.share_read(), progress)
        return progress

    def finish(self, file: StoredFile) -> tuple[Progress, StoredFile | None]:
        """End the import; give how far it came, and the report of the rows that were not imported, if there are any.

        Raises:
            NothingImported: All rows are invalid. The report is kept.
            FileUnreadable: There are no rows.
        """
        with self.transaction() as connection:
            progress = lock_progress(connection, self.tenant, self.job_id)
            report = None
            if progress.rows > progress.created:
                report = keep_report(connection, self.tenant, self.job_id, file, self._header(file))
            finish_import(connection, self.tenant, self.job_id)
            reason = first_reason(connection, self.tenant, self.job_id)
        if not progress.rows:
            raise FileUnreadable.about(file.name, "it has no rows below the column names")
        if progress.rows == progress.invalid:
            raise NothingImported.about(file.name, progress.rows, reason)
        return progress, report

    def _header(self, file: StoredFile) -> Sequence[str]:
        with open_file(self.transaction, self.tenant, file) as content:
            return self._columns(file, open_table(file, content, self.data).rows()).header

    def _columns(self, file: StoredFile, rows: Iterator[Row]) -> Columns:
        first = next(rows, None)
        if first is None or first.problem is not None:
            reason = first.problem if first and first.problem else "it has no row"
            raise FileUnreadable.about(file.name, reason)
        return Columns.of(first.cells, self.data.mapping)

    def _import_batch(self, batch: Sequence[Row], columns: Columns) -> Progress:
        with self.transaction() as connection:
            # The same job may run twice for a moment, when a worker that was believed dead is not: the second waits
            # here, and then sees the first one's rows.
            before = lock_progress(connection, self.tenant, self.job_id)
            rows = [row for row in batch if row.number > before.last_row]
            if not rows:
                return before
            lock_assets(connection, self.tenant)
            outcomes = self._decide(connection, rows, columns)
            return add_outcomes(connection, self.tenant, self.job_id, outcomes)

    def _decide(self, connection: Connection, rows: Sequence[Row], columns: Columns) -> list[Outcome]:
        """Add what is new; give what became of each row, in their order."""
        clients = existing_clients(connection, self.tenant, self._clients_named(rows, columns))
        outcomes: dict[int, Outcome] = {}
        drafts: list[Draft] = []
        for row in rows:
            read = read_row(row, columns, self.data, clients)
            if isinstance(read, Invalid):
                outcomes[row.number] = read
            else:
                drafts.append(read)
        for _ in range(ROUNDS):
            if not drafts:
                return [outcomes[row.number] for row in rows]
            decided = self._add_new(connection, drafts)
            outcomes |= {outcome.row.number: outcome for outcome in decided}
            drafts = [draft for draft in drafts if draft.row.number not in outcomes]
        if drafts:
            raise RowsContested.about([draft.row.number for draft in drafts])
        return [outcomes[row.number] for row in rows]

    def _add_new(self, connection: Connection, drafts: Sequence[Draft]) -> list[Outcome]:
        """Tell duplicates from new ones, and add these; those that met another writer's are not in the result."""
        with_names = self.data.name_similarity is not None
        matcher = Matcher(self.data.name_similarity)
        matcher.add_all(
            possible_duplicates(connection, self.tenant, self.job_id, drafts, with_names=with_names)
        )
        new: list[tuple[Created, Draft]] = []
        duplicates: list[Duplicate] = []
        for draft in drafts:
            duplicate = matcher.duplicate(draft)
            if duplicate is not None:
                duplicates.append(duplicate)
                continue
            created = Created(row=draft.row, asset_id=uuid4())
            new.append((created, draft))
            matcher.add(_as_known(created, draft))
        pairs = [(created.asset_id, draft) for created, draft in new]
        added = add_assets(connection, self.tenant, self.job_id, pairs) if pairs else set()
        refused = {created.asset_id for created, _ in new} - added
        return [
            *(created for created, _ in new if created.asset_id in added),
            # Duplicates of what was not added after all are decided anew.
            *(duplicate for duplicate in duplicates if duplicate.asset_id not in refused),
        ]

    def _clients_named(self, rows: Sequence[Row], columns: Columns) -> set[str]:
        index = columns.index_of.get(AssetField.CLIENT_ID)
        named = {self.data.client_id} if self.data.client_id else set()
        if index is not None:
            named |= {row.cells[index].strip() for row in rows if index < len(row.cells)}
        return {client_id for client_id in named if is_storable(client_id)}


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Give the rows in batches. What comes before a place that cannot be read is a batch too."""
    batch: list[Row] = []
    try:
        for row in rows:
            batch.append(row)
            if len(batch) == size:
                yield batch
                batch = []
    except FileUnreadable:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _as_known(created: Created, draft: Draft) -> Known:
    return Known(
        asset_id=created.asset_id,
        client_id=draft.client_id,
        name=draft.name,
        kind=draft.kind,
        serial_number=draft.serial_number,
        asset_tag=draft.asset_tag,
        mac_address=draft.mac_address,
        host_name=draft.host_name,
        import_row=draft.row.number,
    )
