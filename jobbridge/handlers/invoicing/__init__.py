"""Invoices: priced from contracts and time, rendered, archived and mailed."""
