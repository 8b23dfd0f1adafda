"""The columns of a file of users."""

COLUMNS = (
    "username",
    "email",
    "password",
    "password_hash",
    "first_name",
    "last_name",
    "roles",
    "status",
)
REQUIRED = ("username", "email")
# What the file of refused rows adds, so that it can be corrected and imported.
REFUSAL_COLUMNS = ("refused_row", "refused_because")
SECRETS = frozenset({"password", "password_hash"})
