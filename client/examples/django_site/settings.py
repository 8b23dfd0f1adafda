"""Settings of a Django service without a database.

USERAPI_URL=http://127.0.0.1:8000 DJANGO_SETTINGS_MODULE=django_site.settings \
    django-admin runserver --pythonpath . 8080
"""

import os

SECRET_KEY = os.environ.get("SECRET_KEY", "only for this example, which signs nothing")
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "django_site.urls"
DATABASES = {}

USERAPI = {
    "BASE_URL": os.environ["USERAPI_URL"],
    "ISSUER": "aima-user-service",
    "AUDIENCE": "aima",
}
MIDDLEWARE = ["userapi_client.django.UserApiMiddleware"]
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["userapi_client.drf.BearerAuthentication"],
    "EXCEPTION_HANDLER": "userapi_client.drf.problem_handler",
    "UNAUTHENTICATED_USER": None,  # Without Django's own users.
}
INSTALLED_APPS = ["rest_framework"]
