# The worker: the training stack with the CUDA libraries that torch's wheels carry; the host needs the NVIDIA driver
# and container toolkit only. Layers: compiler, torch, the rest, user, code. A change of code builds the last.
ARG PYTHON_IMAGE=python:3.11-slim
FROM ${PYTHON_IMAGE}

# torch.compile and Triton kernels compile at run time.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

RUN python3 -m venv --without-pip /opt/reason

# Gigabytes that seldom change. A test holds the version equal to constraints.txt. TORCH_INDEX_URL chooses other builds:
# https://download.pytorch.org/whl/cpu has those without CUDA.
ARG TORCH_VERSION=2.11.0
ARG TORCH_INDEX_URL=
RUN python3 -m pip --python /opt/reason/bin/python install --no-cache-dir --disable-pip-version-check \
    ${TORCH_INDEX_URL:+--index-url "${TORCH_INDEX_URL}"} "torch==${TORCH_VERSION}"

# The newer libraries: EXTRAS=train-st6,s3 CONSTRAINTS=constraints-st6.txt TORCH_VERSION=2.13.0.
COPY docker/requirements.py pyproject.toml constraints.txt constraints-st6.txt /tmp/build/
ARG EXTRAS=train,s3
ARG CONSTRAINTS=constraints.txt
RUN python3 /tmp/build/requirements.py "${EXTRAS}" > /tmp/build/requirements.txt \
    && python3 -m pip --python /opt/reason/bin/python install --no-cache-dir --disable-pip-version-check --constraint "/tmp/build/${CONSTRAINTS}" --requirement /tmp/build/requirements.txt \
    && rm -rf /tmp/build

ARG REASON_UID=1000
ARG REASON_GID=1000
WORKDIR /srv/reason
# Volumes mounted here for the first time take these owners.
RUN groupadd --non-unique --gid ${REASON_GID} reason \
    && useradd --non-unique --uid ${REASON_UID} --gid reason --no-create-home --home-dir /srv/reason/models --shell /usr/sbin/nologin reason \
    && install --directory --owner=reason --group=reason data models inputs

COPY docker/reason /usr/local/bin/reason
COPY client client
COPY core core
COPY migrations migrations
COPY worker worker
# Whatever umask the checkout was made under, the user below can read it.
RUN chmod 755 /usr/local/bin/reason && chmod -R a+rX client core migrations worker && /opt/reason/bin/python -m compileall -q .

ENV PATH=/opt/reason/bin:$PATH \
    PYTHONPATH=/srv/reason \
    PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/srv/reason/models \
    USER=reason \
    HF_HOME=/srv/reason/models/huggingface \
    REASON_DATA_DIR=/srv/reason/data \
    REASON_ALLOWED_PATHS=/srv/reason/data:/srv/reason/inputs \
    REASON_HEARTBEAT_FILE=/tmp/reason-heartbeat
USER reason
# The file is touched whenever the database has taken a heartbeat.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD test -n "$(find "$REASON_HEARTBEAT_FILE" -newermt '30 seconds ago' 2>/dev/null)"
# SIGTERM: running jobs save a checkpoint and go back to the queue, for as long as REASON_GRACE_SECONDS.
CMD ["reason", "worker"]
