# Stands in for the official image where none can be pulled: the same variables, folder and user.
ARG BASE
FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql tzdata util-linux \
    && rm -rf /var/lib/apt/lists/* && install --directory --owner=postgres /var/lib/postgresql/data
ENV PGDATA=/var/lib/postgresql/data
COPY postgres.sh /usr/local/bin/
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
EXPOSE 5432
CMD ["bash", "/usr/local/bin/postgres.sh"]
