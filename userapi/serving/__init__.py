"""What Gunicorn loads around the application: log, worker, draining, and limits of bodies."""
