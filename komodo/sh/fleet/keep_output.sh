# shellcheck shell=sh
# Prints standard input: as a job's output it is stored, and every repetition gets what the first call sent.
cat
