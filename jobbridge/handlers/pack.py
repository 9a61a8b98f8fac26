"""All handlers of the pack: importing this module declares them. `jobbridge.bootstrap` has the app include it."""

from __future__ import annotations

from jobbridge.handlers.assets.asset_import import asset_import
from jobbridge.handlers.buckets.reconciling import reconcile_bucket_usage
from jobbridge.handlers.calendars.google import verify_google_calendar_pubsub
from jobbridge.handlers.calendars.microsoft import renew_microsoft_calendar_webhooks
from jobbridge.handlers.cleanup.forms import cleanup_temporary_workflow_forms
from jobbridge.handlers.cleanup.keys import cleanup_ai_session_keys
from jobbridge.handlers.credits.expiring import expired_credits
from jobbridge.handlers.credits.notifying import expiring_credits_notification
from jobbridge.handlers.credits.reconciling import credit_reconciliation
from jobbridge.handlers.invoicing.emailing import invoice_email
from jobbridge.handlers.invoicing.generate import generate_invoice
from jobbridge.handlers.invoicing.zipping import invoice_zip

__all__ = [
    "asset_import",
    "cleanup_ai_session_keys",
    "cleanup_temporary_workflow_forms",
    "credit_reconciliation",
    "expired_credits",
    "expiring_credits_notification",
    "generate_invoice",
    "invoice_email",
    "invoice_zip",
    "reconcile_bucket_usage",
    "renew_microsoft_calendar_webhooks",
    "verify_google_calendar_pubsub",
]
