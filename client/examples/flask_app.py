"""A Flask service: reading is verified by the signature, deleting asks the service.

USERAPI_URL=http://127.0.0.1:8000 flask --app flask_app run --port 8080
"""

import os

from flask import Flask

from userapi_client import Verifier
from userapi_client.flask import UserApi, current_principal

app = Flask(__name__)
verifier = Verifier(os.environ["USERAPI_URL"], issuer="aima-user-service", audience="aima")
auth = UserApi(verifier, app)


@app.get("/media")
@auth.required("media:read")
def index():
    return {"for": current_principal.id, "checked": current_principal.checked}


@app.delete("/media/<name>")
@auth.required("media:delete", fresh=True)
def delete(name):
    return "", 204
