# PostgreSQL with DocumentDB, with the official image's variables, volume and port.
FROM kue-postgres-root:1
COPY postgres_entry.sh /usr/local/bin/entry.sh
RUN chmod 755 /usr/local/bin/entry.sh
VOLUME /var/lib/postgresql/data
EXPOSE 5432
STOPSIGNAL SIGINT
ENTRYPOINT ["/usr/local/bin/entry.sh"]
