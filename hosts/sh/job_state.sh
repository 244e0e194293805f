# shellcheck shell=sh
# needs: lib/jobs.sh
# params: job
# The state of a job: none | starting | running | done | gone. Reads only.
ku_state_of "$job"
say state "$ku_state"
