#!/bin/sh
# Creates the namespace `default`, or sets its retention.
set -eu
temporal operator cluster health
if temporal operator namespace describe --namespace default >/dev/null 2>&1; then
    temporal operator namespace update --namespace default --retention 90d
else
    temporal operator namespace create --namespace default --retention 90d
fi
