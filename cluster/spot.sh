#!/usr/bin/env bash
# Starts a Ray node on a spot machine: `spot.sh aws|gcp ARGUMENTS` is `ray start ARGUMENTS`. When the cloud announces
# that it takes the machine back (AWS two minutes before, Google 30 seconds), the node is told to leave. It then tells
# the cluster, and trainings write a checkpoint at once. Where the head may be taken back, too, start the search by
# `--resume auto --name NAME`: the same command line on the next head goes on. What the node says stands in /tmp/raynas-spot.log.
set -uo pipefail

announced() {
    local place token
    case $1 in
    aws)
        place=${METADATA:-http://169.254.169.254}/latest
        token=$(curl -fsm 2 --noproxy '*' -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$place/api/token") &&
            curl -fsm 2 --noproxy '*' -o /dev/null -H "X-aws-ec2-metadata-token: $token" \
                "$place/meta-data/spot/instance-action"
        ;;
    gcp)
        place=${METADATA:-http://metadata.google.internal}/computeMetadata/v1
        [[ $(curl -fsm 2 --noproxy '*' -H 'Metadata-Flavor: Google' "$place/instance/preempted") == TRUE ]]
        ;;
    esac
}

cloud=${1:-}
log=${LOG:-/tmp/raynas-spot.log}
# How long a node that leaves stays there, in seconds.
case $cloud in
aws) export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=${RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S:-100} ;;
gcp) export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=${RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S:-20} ;;
*)
    echo "spot.sh: unknown cloud '$cloud'; legal ones: aws, gcp" >&2
    exit 2
    ;;
esac

if [[ -z ${IN_BACKGROUND:-} ]]; then
    : >"$log"
    IN_BACKGROUND=1 nohup setsid bash "$0" "$@" >>"$log" 2>&1 </dev/null &
    until grep -q 'Ray runtime started' "$log"; do
        if ! kill -0 $! 2>/dev/null; then
            cat "$log" >&2
            exit 1
        fi
        sleep 0.2
    done
    exit 0
fi

shift
ray start --block "$@" &
node=$!
while kill -0 "$node" 2>/dev/null; do
    if announced "$cloud"; then
        echo "spot.sh: the machine is taken back, the node leaves"
        kill -TERM "$node"
        break
    fi
    sleep "${EVERY:-5}"
done
wait "$node"
