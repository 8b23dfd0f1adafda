"""A FastAPI service: each token is asked for at most once in five seconds.

USERAPI_URL=http://127.0.0.1:8000 uvicorn fastapi_app:app --port 8080
"""

import os
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI

from userapi_client import AsyncVerifier, Introspection, Principal
from userapi_client.fastapi import Auth

verifier = AsyncVerifier(
    os.environ["USERAPI_URL"],
    issuer="aima-user-service",
    audience="aima",
    revocation=Introspection(cache_seconds=5),
)


@asynccontextmanager
async def lifespan(app):
    async with verifier:
        await verifier.warm()
        yield


app = FastAPI(lifespan=lifespan)
auth = Auth(verifier)
auth.install(app)  # problem documents for 401, 403 and 503
Reader = Annotated[Principal, Depends(auth.required("media:read"))]


@app.get("/media")
async def index(who: Reader):
    return {"for": who.id, "type": who.type}
