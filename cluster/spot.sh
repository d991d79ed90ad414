#!/usr/bin/env bash
# Starts a Ray node on a spot machine: `spot.sh aws|gcp ARGUMENTS` is `ray start --block ARGUMENTS`, and when the cloud
# announces that it takes the machine back (AWS two minutes before, Google 30 seconds), the node is told to leave. It
# then tells the cluster, and trainings write a checkpoint at once.
set -uo pipefail

announced() {
    case $1 in
    aws)
        local place=${METADATA:-http://169.254.169.254}/latest token
        token=$(curl -fsm 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$place/api/token") &&
            curl -fsm 2 -o /dev/null -H "X-aws-ec2-metadata-token: $token" "$place/meta-data/spot/instance-action"
        ;;
    gcp)
        local place=${METADATA:-http://metadata.google.internal}/computeMetadata/v1
        [[ $(curl -fsm 2 -H 'Metadata-Flavor: Google' "$place/instance/preempted") == TRUE ]]
        ;;
    *)
        echo "spot.sh: unknown cloud '$1'; legal ones: aws, gcp" >&2
        exit 2
        ;;
    esac
}

cloud=${1:-}
shift
announced "$cloud" && exit 0 # no node for the last seconds of a machine
ray start --block "$@" &
node=$!
trap 'kill -TERM "$node"' TERM INT
while kill -0 "$node" 2>/dev/null; do
    if announced "$cloud"; then
        echo "spot.sh: the machine is taken back, the node leaves"
        kill -TERM "$node"
        break
    fi
    sleep "${EVERY:-5}"
done
wait "$node"
