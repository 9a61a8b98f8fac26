"""What a job made and somebody may want to have: documents, archives, reports.

The application says where they are, by the setting `job_artifacts`: functions, or their names as `module:function`,
that are given the app and a job's row, and give its artifacts:

    app.conf.job_artifacts = ["shop.reports:artifacts_of"]

    def artifacts_of(app, job):
        return [Artifact(artifact_id="report", name="report.pdf", media_type="application/pdf", size=None, read=...)]
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery.utils.imports import symbol_by_name

from jobbridge.errors import ConfigurationError

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.store.jobs.rows import JobRow

SETTING = "job_artifacts"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """Something that a job made.

    Attributes:
        artifact_id: Names it among those of the job.
        name: Of the file.
        size: In bytes, if that is known.
        read: Gives its bytes; raises LookupError when it is not there any more.
    """

    artifact_id: str
    name: str
    media_type: str
    size: int | None
    read: Callable[[], bytes]


ArtifactSource = Callable[[Any, Any], Sequence[Artifact]]


def artifacts_of(app: Celery, job: JobRow) -> list[Artifact]:
    """Give what a job made, of all sources; one that fails is left out, and logged.

    Raises:
        ConfigurationError: The setting names something that is not there.
    """
    found: list[Artifact] = []
    for source in _sources(app):
        try:
            found += source(app, job)
        except Exception:  # somebody else's code: its error must not hide the job
            logger.exception("job.artifacts_not_found", extra={"job_id": str(job.job_id)})
    return found


def _sources(app: Celery) -> list[ArtifactSource]:
    return [_resolved(each) for each in app.conf.get(SETTING) or ()]


def _resolved(reference: Any) -> ArtifactSource:
    try:
        found: Any = symbol_by_name(reference) if isinstance(reference, str) else reference
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"The setting {SETTING} names {reference!r}, which is not there: {error}.",
            hint="Correct it: module:function.",
        ) from error
    return found  # type: ignore[no-any-return]  # whatever the application gave
