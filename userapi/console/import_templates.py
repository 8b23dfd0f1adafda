"""Files of users as examples, to fill in and import."""

from userapi.infrastructure.export import ExportFormat

TEMPLATES = {
    ExportFormat.CSV: (
        "username,email,first_name,last_name,roles,status,password,password_hash\r\n"
        "ada.lovelace,ada@example.com,Ada,Lovelace,user;moderator,active,,\r\n"
        "grace.hopper,grace@example.com,Grace,Hopper,user,active,,\r\n"
    ),
    ExportFormat.NDJSON: (
        '{"username": "ada.lovelace", "email": "ada@example.com", "first_name": "Ada", '
        '"last_name": "Lovelace", "roles": ["user", "moderator"], "status": "active"}\n'
        '{"username": "grace.hopper", "email": "grace@example.com", "first_name": "Grace", '
        '"last_name": "Hopper", "roles": ["user"], "status": "active"}\n'
    ),
}
