# The HTTP server, the migrations and the command line. No torch inside.
# Layers: user and folders, what pyproject.toml asks for, the code. A change of code builds the last one.
ARG PYTHON_IMAGE=python:3.11-slim
FROM ${PYTHON_IMAGE}

ARG REASON_UID=1000
ARG REASON_GID=1000
WORKDIR /srv/reason
# Volumes mounted here for the first time take these owners.
RUN groupadd --non-unique --gid ${REASON_GID} reason \
    && useradd --non-unique --uid ${REASON_UID} --gid reason --no-create-home --home-dir /srv/reason/models --shell /usr/sbin/nologin reason \
    && install --directory --owner=reason --group=reason data models inputs

# A virtual environment without pip of its own: the base image's Python may be the distribution's.
COPY docker/requirements.py pyproject.toml constraints.txt /tmp/build/
ARG EXTRAS=s3
RUN python3 -m venv --without-pip /opt/reason \
    && python3 /tmp/build/requirements.py "${EXTRAS}" > /tmp/build/requirements.txt \
    && python3 -m pip --python /opt/reason/bin/python install --no-cache-dir --disable-pip-version-check --constraint /tmp/build/constraints.txt --requirement /tmp/build/requirements.txt \
    && rm -rf /tmp/build

COPY docker/reason /usr/local/bin/reason
COPY api api
COPY client client
COPY core core
COPY migrations migrations
# The libraries of the dashboard's pages. Whatever umask the checkout was made under, the user below can read it.
RUN python3 -m api.pages.fetch_assets && chmod 755 /usr/local/bin/reason && chmod -R a+rX api client core migrations && /opt/reason/bin/python -m compileall -q .

ENV PATH=/opt/reason/bin:$PATH \
    PYTHONPATH=/srv/reason \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/srv/reason/models \
    USER=reason \
    REASON_DATA_DIR=/srv/reason/data \
    REASON_ALLOWED_PATHS=/srv/reason/data:/srv/reason/inputs
USER reason
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["reason", "api", "--host", "0.0.0.0"]
