"""The application that Gunicorn serves."""

from userapi import create_app
from userapi.settings import faults_end_the_process

with faults_end_the_process():
    app = create_app()
