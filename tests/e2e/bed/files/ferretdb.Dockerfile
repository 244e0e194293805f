# FerretDB v2 alone, as in its official image.
FROM scratch
COPY ferretdb /ferretdb
ENV FERRETDB_LISTEN_ADDR=:27017 FERRETDB_DEBUG_ADDR=- FERRETDB_TELEMETRY=disable FERRETDB_STATE_DIR=/state
VOLUME /state
EXPOSE 27017
ENTRYPOINT ["/ferretdb"]
