"""Whom a client's mail about money goes to."""

from __future__ import annotations

from dataclasses import dataclass

from jobbridge.handlers.mailing.errors import NoRecipient
from jobbridge.handlers.sql import Connection, one_as

# The billing contact, else the client's billing address for mail, else a location's: billing, default, any.
RECIPIENT = """
SELECT name, email
FROM (
    SELECT 1 AS rank, contact.name, contact.email, contact.contact_id AS id
    FROM psa.clients AS client
    JOIN psa.contacts AS contact
        ON contact.tenant = client.tenant AND contact.contact_id = client.billing_contact_id
    WHERE client.tenant = %(tenant)s AND client.client_id = %(client_id)s AND contact.is_active
    UNION ALL
    SELECT 2, client.name, client.billing_email, client.client_id
    FROM psa.clients AS client
    WHERE client.tenant = %(tenant)s AND client.client_id = %(client_id)s
    UNION ALL
    SELECT CASE WHEN place.is_billing THEN 3 WHEN place.is_default THEN 4 ELSE 5 END,
        client.name, place.email, place.location_id
    FROM psa.clients AS client
    JOIN psa.client_locations AS place USING (tenant, client_id)
    WHERE client.tenant = %(tenant)s AND client.client_id = %(client_id)s
) AS candidate
WHERE email LIKE '%%_@_%%'
ORDER BY rank, id
LIMIT 1
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipient:
    name: str
    email: str


def recipient_of(connection: Connection, tenant: str, client_id: str) -> Recipient:
    """Find whom a client's invoices go to.

    Raises:
        NoRecipient: The client has no e-mail address.
    """
    found = one_as(Recipient, connection, RECIPIENT, {"tenant": tenant, "client_id": client_id})
    if found is None:
        raise NoRecipient.about(client_id)
    return found
