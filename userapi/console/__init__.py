"""The pages for browsers, under /console/.

They call the same services as the API and add no rules. Every change also works
without JavaScript.
"""

from flask import Flask

from userapi.wiring.services import Services

from . import (
    account,
    api_keys,
    audit,
    bulk,
    bulk_words,
    confirmation,
    cookies,
    dashboard,
    errors,
    import_words,
    imports,
    job_lists,
    languages,
    list_preferences,
    mails,
    passkeys,
    relative_times,
    rendering,
    roles,
    second_step,
    security,
    service_accounts,
    sign_in,
    theme,
    user,
    user_actions,
    user_keys,
    user_roles,
    users,
)
from .blueprint import blp

# Each adds its pages, hooks or error handlers to the one blueprint.
MODULES = (
    rendering,
    theme,
    relative_times,
    bulk_words,
    import_words,
    errors,
    sign_in,
    second_step,
    passkeys,
    confirmation,
    security,
    mails,
    account,
    dashboard,
    users,
    user,
    user_actions,
    user_keys,
    user_roles,
    bulk,
    list_preferences,
    imports,
    job_lists,
    roles,
    service_accounts,
    api_keys,
    audit,
)


def init_app(app: Flask, services: Services) -> None:
    """Serve the pages, if the settings enable them."""
    if services.settings.console_enabled:
        cookies.init_app(app, services.settings)
        languages.init_app(app)
        app.register_blueprint(blp)
