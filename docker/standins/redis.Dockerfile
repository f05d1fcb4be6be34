# Stands in for the official image where none can be pulled.
ARG BASE
FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends redis-server util-linux \
    && rm -rf /var/lib/apt/lists/*
COPY redis.sh /usr/local/bin/
EXPOSE 6379
ENTRYPOINT ["bash", "/usr/local/bin/redis.sh"]
CMD ["redis-server"]
