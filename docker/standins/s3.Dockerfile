# An object storage for docker/test.sh: moto's S3 server, which forgets everything when it stops.
ARG BASE
FROM ${BASE}
RUN python3 -m venv /opt/moto \
    && /opt/moto/bin/python -m pip install --no-cache-dir --disable-pip-version-check --quiet 'moto[s3]' flask flask-cors
EXPOSE 5000
CMD ["/opt/moto/bin/moto_server", "--host", "0.0.0.0"]
