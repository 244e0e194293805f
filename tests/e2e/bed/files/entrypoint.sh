#!/bin/sh
# As the official v2 images begin: certificates of the host first, then the program.
command -v update-ca-certificates >/dev/null 2>&1 && update-ca-certificates >/dev/null 2>&1
exec "$@"
