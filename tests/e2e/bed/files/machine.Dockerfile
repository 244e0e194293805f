# One machine of the bed: its own host keys, and what its owner put there.
ARG HOST=kue-host:1
FROM ${HOST}
ARG ENGINE
ARG SETUP
COPY tree /
RUN chmod 600 /etc/ssh/ssh_host_ed25519_key && rm -f /etc/ssh/ssh_host_rsa_key /etc/ssh/ssh_host_ecdsa_key \
 && if [ "$ENGINE" = no ]; then systemctl mask docker.service docker.socket containerd.service; else systemctl enable docker.service containerd.service; fi \
 && sh -c "$SETUP"
