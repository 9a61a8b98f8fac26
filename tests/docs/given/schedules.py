from jobbridge import Celery, get_job_runner

app = Celery("shop")
runner = get_job_runner()
