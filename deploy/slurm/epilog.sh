#!/bin/sh
# EpilogSlurmctld: releases what prolog.sh has leased for a job.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/wiresum.conf"

state=$STATE/$SLURM_JOB_ID
[ -f "$state.pid" ] || exit 0
pid=$(cat "$state.pid")
# The number may be another process's by now.
if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q -- "--name slurm-$SLURM_JOB_ID "; then
  kill "$pid"
  tries=100
  while kill -0 "$pid" 2>/dev/null && [ "$tries" -gt 0 ]; do
    tries=$((tries - 1))
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null
fi
rm -f "$state".*
exit 0
