import os

from jobbridge import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
app = Celery("mysite", config_source="django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
