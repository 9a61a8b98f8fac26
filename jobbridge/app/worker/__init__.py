"""What a worker of either engine does beside Celery's own steps: its presence, its services, paused queues."""
