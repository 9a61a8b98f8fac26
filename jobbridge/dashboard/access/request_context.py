"""What every page and action works with: the request, who makes it, and what they may see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlencode
from uuid import UUID

from starlette.datastructures import ImmutableMultiDict
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from jobbridge.app.execute.handlers import tenant_in
from jobbridge.codec.rows import hidden_detail, hidden_job
from jobbridge.core.access import Principal, Role
from jobbridge.core.keys import JobKey, TenantId, job_id_for
from jobbridge.dashboard.access.identity import Identity

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.dashboard.application import Dashboard
    from jobbridge.store.jobs.rows import JobDetailRow, JobRow


Form: TypeAlias = ImmutableMultiDict[str, str]
Query: TypeAlias = Mapping[str, Any] | Sequence[tuple[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestContext:
    """One request.

    Attributes:
        identity: Who makes it; None only on routes that are open to everybody.
        form: What a page's form sent; a name may be there several times (`getlist`).
    """

    dashboard: Dashboard
    request: Request
    identity: Identity | None
    form: Form

    @property
    def app(self) -> Celery:
        return self.dashboard.app

    @property
    def principal(self) -> Principal:
        assert self.identity is not None, "the route says that somebody is known"
        return self.identity.principal

    @property
    def tenant(self) -> TenantId | None:
        """The tenant whose jobs are shown: the only one there is for this principal, else the one asked for."""
        asked = self.principal.tenant or storable(self.request.query_params.get("tenant", ""))
        return self.dashboard.tenant_ids.known(asked) if asked else None

    @property
    def sees_several_tenants(self) -> bool:
        """Whether this principal may see jobs of more than one tenant, and there are such; it is asked each time."""
        return self.principal.tenant is None and self.dashboard.tenants.several_have_jobs()

    def names_another_tenant(self, *data: Any) -> bool:
        """Tell whether a job's data names a tenant that is not the only one there is for this principal."""
        own = self.principal.tenant
        return own is not None and any(tenant_in(each) not in {None, own} for each in data)

    def note(
        self, action: str, *, job: JobKey | None = None, tenant: TenantId | None = None, **more: Any
    ) -> None:
        """Put on record what this principal does.

        Args:
            action: A verb.
            job: To which job; or:
            tenant: Whose things it is about.
            more: As for `AccessStore.note`.
        """
        if job is not None:
            tenant, more = job.tenant, {"subject": str(job.job_id), **more}
        self.dashboard.access.note(self.principal, action, tenant=tenant, **more)

    def path(self, name: str, /, *, query: Query | None = None, **params: Any) -> str:
        """Give the address of a route, wherever the application is mounted."""
        root = str(self.request.scope.get("root_path", "")).rstrip("/")
        path = root + str(self.dashboard.router.url_path_for(name, **params))
        return f"{path}?{urlencode(query, doseq=True)}" if query else path

    def of_tenant(self, tenant: str | None) -> dict[str, str]:
        """Give what an address says so that it keeps to a tenant; who is bound to one need not say so."""
        return {} if tenant is None or self.principal.tenant is not None else {"tenant": tenant}

    def set_cookie(self, response: Response, name: str, value: str, *, seconds: int) -> None:
        """Have the browser send it back, to this application alone."""
        is_secure = self.request.url.scheme == "https"
        response.set_cookie(
            name,
            value,
            max_age=seconds,
            path=self.path("overview"),
            secure=is_secure,
            httponly=True,
            samesite="lax",
        )

    def find_job(self, named: str | None = None) -> JobRow:
        """Give the job of the address.

        Args:
            named: Its id, if the address does not say it in its path.

        Raises:
            HTTPException: 404, alike for one that is not there and one that is not theirs to see.
        """
        text = storable(str(self.request.path_params["job_id"] if named is None else named))
        job_id = job_id_for(text)
        tenant, jobs = self.tenant, self.app.jobs
        row = jobs.find(job_id) if tenant is None else jobs.get(JobKey(tenant=tenant, job_id=job_id))
        row = row or jobs.find_external(text, tenant)
        if row is None or not self.principal.sees(row.tenant):
            raise HTTPException(404, f"There is no job {text}.")
        return row if self.sees_encrypted else hidden_job(row)

    def details_of(self, row: JobRow) -> Sequence[JobDetailRow]:
        """Give the steps of a job, as this principal may see them."""
        details = self.app.jobs.details(row.key)
        return details if self.sees_encrypted else [hidden_detail(each) for each in details]

    @property
    def sees_encrypted(self) -> bool:
        """Whether this principal is shown what is encrypted at rest: operators, who may send it again, and admins."""
        return not self.app.database.codec or self.principal.may(Role.OPERATOR)


#: Takes a request's context. A plain function runs on a thread, a coroutine function on the event loop.
#: An API route may take more.
Endpoint = Callable[..., Any]


POST = ("POST",)


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the route table. Who adds a route says here who may use it; tests are generated from it.

    Attributes:
        needs: The least role; None: open to everybody.
        is_global: Of the whole installation: whoever is bound to a tenant gets the same 404 as for no such page.
        is_api: It speaks JSON: no forms, and nobody is led to the page where one signs in. What changes something needs
            no form's token if a token came in the header; with a cookie, the header `X-Form-Token` or the browser's own
            word that a page of this site sends it.
        is_stream: Its answer does not end by itself.
        form_limit: Bytes of a form, at most.
    """

    path: str
    name: str
    endpoint: Endpoint
    needs: Role | None
    _: KW_ONLY
    methods: tuple[str, ...] = ("GET",)
    is_global: bool = False
    is_api: bool = False
    is_stream: bool = False
    form_limit: int = 64 * 1024

    @property
    def changes(self) -> bool:
        """Whether it may change something."""
        return not set(self.methods) <= {"GET", "HEAD"}

    @property
    def is_form(self) -> bool:
        """Whether a page's form sends it: then it must carry the form's token."""
        return self.changes and not self.is_api


def storable(text: str) -> str:
    """Make a text one that Postgres can be asked for: it refuses NUL characters, and no column holds one."""
    return text.replace("\0", "\ufffd")


def uuid_or_none(text: str) -> UUID | None:
    """Read an id from an address."""
    try:
        return UUID(text)
    except ValueError:
        return None
