# shellcheck shell=sh
# needs: jobs.sh
# state.sh JOB: what this job is right now: none | starting | running | done | gone. Reads only.
ku_state_of "$1"
say state "$ku_state"
