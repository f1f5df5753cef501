#!/bin/sh
# PrologSlurmctld: leases slots for a job before it starts, as the tenant named like its account.
#
# `wiresum run` holds the lease in the background until epilog.sh ends it; the job's own launchers
# share it by its name. A job without a lease starts all the same: exit 0.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/wiresum.conf"

say() {
  logger -t wiresum "job $SLURM_JOB_ID: $1" 2>/dev/null
}

account=${SLURM_JOB_ACCOUNT:-}
case $account in
  "" | .* | *[!A-Za-z0-9._-]*) exit 0 ;;
esac
token=$TOKENS/$account.token
[ -f "$token" ] || exit 0

umask 077
mkdir -p "$STATE" || exit 0
state=$STATE/$SLURM_JOB_ID
rm -f "$state".*
# The command starts when the job has its slots.
setsid "$WIRESUM" run --controller "$CONTROLLER" --ca "$CA" --token-file "$token" \
  --name "slurm-$SLURM_JOB_ID" --if-full wait --queue-timeout "$LIMIT_S" -- \
  sh -c ': > "$1" && exec sleep infinity' hold "$state.held" \
  </dev/null >"$state.log" 2>&1 &
echo $! >"$state.pid"

tries=$((LIMIT_S * 5))
while [ ! -e "$state.held" ]; do
  if ! kill -0 "$(cat "$state.pid")" 2>/dev/null || [ "$tries" -le 0 ]; then
    say "starts without a lease: $(tail -n 1 "$state.log")"
    exit 0
  fi
  tries=$((tries - 1))
  sleep 0.2
done
exit 0
