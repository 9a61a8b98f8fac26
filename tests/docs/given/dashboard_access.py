import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from fastapi import FastAPI
from shop import app as celery_app
from starlette.applications import Starlette
from starlette.routing import Mount

settings.configure()
django.setup()
