"""The pages for browsers, under /console/. They call the same services as the API and add no rule
of their own; all that changes something works without JavaScript.
"""

from flask import Flask

from userapi.wiring import Services

from . import account, audit, cookies, dashboard, imports, mails, pages, roles, sign_in, user, users

# Each adds its pages to the one blueprint.
MODULES = (sign_in, mails, account, dashboard, users, user, imports, roles, audit)


def init_app(app: Flask, services: Services) -> None:
    """Serve the pages, where the operator wants them."""
    if services.settings.console_enabled:
        cookies.init_app(app, services.settings)
        app.register_blueprint(pages.blp)
