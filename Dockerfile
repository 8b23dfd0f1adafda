# syntax=docker/dockerfile:1

FROM python:3.11-slim-bookworm AS builder

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

RUN python -m venv /opt/venv
COPY requirements.txt /build/
# Wheels alone: nothing is compiled, and no requirement runs code of its own while it is installed.
RUN /opt/venv/bin/pip install --only-binary=:all: --requirement /build/requirements.txt \
    && /opt/venv/bin/pip check \
    && /opt/venv/bin/pip uninstall --yes setuptools pip

COPY userapi /app/userapi
COPY migrations /app/migrations
COPY gunicorn.conf.py wsgi.py /app/
# The root file system is read-only when it runs; compiled here, nothing is compiled at each start.
RUN /opt/venv/bin/python -m compileall -q -j 0 /opt/venv/lib /app


FROM python:3.11-slim-bookworm

ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="User Management Service" \
      org.opencontainers.image.description="Accounts, sign-in, roles, sessions, audit and events for AIMA" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11-slim-bookworm"

# What could install something is of no use to the service, only to who breaks into it.
RUN python -m pip uninstall --yes --root-user-action=ignore setuptools wheel pip \
    && rm -rf /usr/local/lib/python3.11/ensurepip /root/.cache \
    && install -d -o 10001 -g 10001 -m 0750 /var/lib/userapi

COPY --from=builder /opt/venv /opt/venv
COPY --from=builder /app /app

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    PYTHONUNBUFFERED=1 \
    BIND=0.0.0.0:8000 \
    INSTANCE_DIR=/var/lib/userapi

WORKDIR /app
# A number, so that a platform which forbids root can see that it is none. It owns no code.
USER 10001:10001
VOLUME /var/lib/userapi
EXPOSE 8000
STOPSIGNAL SIGTERM

HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/api/v1/health/live', timeout=2)"]

CMD ["gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
