"""The application that Gunicorn serves."""

from userapi import create_app

app = create_app()
