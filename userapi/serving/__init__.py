"""What Gunicorn loads around the application: log, worker, draining, and bounds on bodies."""
