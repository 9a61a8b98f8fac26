from shop import app

from jobbridge import job
