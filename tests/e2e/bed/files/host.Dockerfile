# A Debian 12 machine: systemd is PID 1, sshd, sudo, journald, a Docker engine with Compose v2 as a plugin.
ARG ROOT
FROM ${ROOT}
ARG PLUGIN
ENV container=docker
COPY ca.crt /usr/local/share/ca-certificates/kue.crt
COPY docker-compose /usr/libexec/docker/cli-plugins/docker-compose
COPY id_ed25519.pub /tmp/id.pub
COPY registry.yml push.yml web.py srv.crt srv.key /etc/kue/
RUN update-ca-certificates >/dev/null 2>&1 \
 && useradd -m -s /bin/bash ops && usermod -aG docker,systemd-journal ops \
 && echo 'ops ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/ops && chmod 440 /etc/sudoers.d/ops \
 && install -d -m 700 -o ops -g ops /home/ops/.ssh && install -m 600 -o ops -g ops /tmp/id.pub /home/ops/.ssh/authorized_keys \
 && rm /tmp/id.pub \
 && chmod 755 /usr/libexec/docker/cli-plugins/docker-compose && chmod 600 /etc/kue/srv.key \
 && printf 'UseDNS no\nPasswordAuthentication no\nPermitRootLogin no\n' > /etc/ssh/sshd_config.d/kue.conf \
 && mkdir -p /var/log/journal /etc/systemd/system.conf.d \
 && printf '[Manager]\n# debug builds of Komodo need a big stack\nDefaultEnvironment=RUST_MIN_STACK=67108864\n' > /etc/systemd/system.conf.d/kue.conf \
 && systemctl enable ssh.service \
 && systemctl mask getty.target console-getty.service systemd-logind.service systemd-udevd.service systemd-udev-trigger.service \
      systemd-timesyncd.service systemd-networkd.service systemd-resolved.service dev-hugepages.mount sys-fs-fuse-connections.mount \
      sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount apt-daily.timer apt-daily-upgrade.timer \
      dpkg-db-backup.timer fstrim.timer e2scrub_all.timer docker-registry.service \
 && rm -f /etc/machine-id && touch /etc/machine-id
RUN if [ "$PLUGIN" = remove ]; then rm /usr/libexec/docker/cli-plugins/docker-compose; fi
STOPSIGNAL SIGRTMIN+3
CMD ["/sbin/init"]
