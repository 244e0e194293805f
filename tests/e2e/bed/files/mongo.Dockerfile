# In the place of the image `mongo`: its port, volumes, MONGO_INITDB_ROOT_* and flags, and the dump tools.
FROM kue-small:1
COPY site /opt/site
COPY mongodump mongorestore /usr/bin/
COPY mongo_entry.py /usr/local/bin/docker-entrypoint.py
RUN chmod 755 /usr/bin/mongodump /usr/bin/mongorestore && mkdir -p /data/db /data/configdb
ENV PYTHONPATH=/opt/site PYTHONUNBUFFERED=1
VOLUME /data/db /data/configdb
EXPOSE 27017
ENTRYPOINT ["python3", "/usr/local/bin/docker-entrypoint.py"]
CMD ["mongod"]
