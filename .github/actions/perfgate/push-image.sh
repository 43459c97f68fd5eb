#!/usr/bin/env bash
# Builds docker/Dockerfile on the locked base image and pushes it; the digest goes into the job's summary.
set -euo pipefail

name=${NAME?}
name=${name,,}
docker login ghcr.io --username "$ACTOR" --password-stdin <<<"$PASSWORD"
trap 'docker logout ghcr.io' EXIT
docker build --file docker/Dockerfile --tag "$name:$REVISION" \
    --build-arg "BASE=$BASE" \
    --build-arg "REVISION=$REVISION" \
    --build-arg "SOURCE=$SOURCE" \
    .
docker push "$name:$REVISION"
digest=$(docker image inspect --format '{{index .RepoDigests 0}}' "$name:$REVISION")
printf 'Set the repository variable PERFGATE_IMAGE to <code>%s</code>\n' "$digest" >>"$GITHUB_STEP_SUMMARY"
