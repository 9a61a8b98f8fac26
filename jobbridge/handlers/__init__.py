"""Handlers of a professional-services business: the reference application. Import `jobbridge.handlers.pack`."""
