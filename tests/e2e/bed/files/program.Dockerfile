# Komodo's core or periphery, in the layout of the official images (v2.3.2:bin/core/single-arch.Dockerfile and others).
FROM kue-small:1
ARG ROLE
ARG MAJOR
COPY files /
RUN chmod 755 /usr/local/bin/* && if [ "$ROLE" = core ]; then mkdir -p /action-cache /app/frontend /app/ui; fi
ENV RUST_MIN_STACK=67108864
