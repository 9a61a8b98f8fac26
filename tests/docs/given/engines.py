from shop import bill as task

from jobbridge import job

args = (7,)
