#!/usr/bin/env bash
# One command of the action. Inputs come as variables and are never part of a command line's text.
set -euo pipefail

out=perfgate-out
# In a container the checkout may be another user's; git is told that it is meant, for this job alone.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=$PWD

# Runs perfgate, shows what it found whatever that is, and ends as it ended.
measure() {
    local code=0
    if [ -n "$IMAGE" ] && [ -f docker/image.lock ]; then
        # The image is ours, built on the locked one: our own registry is allowed beside NGC, no other.
        perfgate image verify --reference "$IMAGE" \
            --allow "${PERFGATE_REGISTRY:-ghcr.io/${GITHUB_REPOSITORY_OWNER,,}}"
        export PERFGATE_IMAGE_DIGEST=${IMAGE##*@}
    fi
    # What a model prints must not be taken for commands to the runner.
    local token
    token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    echo "::stop-commands::$token"
    perfgate run "$@" ${LEG:+--leg "$LEG"} --out "$out" || code=$?
    echo "::$token::"
    if [ -f "$out/results.json" ]; then
        perfgate github annotate "$out/results.json" || true
    fi
    return "$code"
}

case $COMMAND in
plan)
    perfgate github plan
    ;;
gate)
    # GitHub's merge of a pull request says itself what it starts from: its first parent. Any other commit starts
    # where its branch left the base.
    base=()
    if [ -n "$BASE" ] && ! git rev-parse --quiet --verify 'HEAD^2' >/dev/null; then
        base=(--base "$(git merge-base "$BASE" HEAD)")
    fi
    # The judge comes from the base commit: a change cannot loosen what it is judged by.
    measure --require-baseline --policy-from base "${base[@]}"
    ;;
publish)
    perfgate github publish
    ;;
nightly)
    # A case without a baseline is no failure at night: its first one is proposed.
    measure --remeasure
    ;;
report)
    code=0
    perfgate merge legs --out "$out" || code=$?
    cat "$out/comment.md" >>"$GITHUB_STEP_SUMMARY"
    perfgate github issues legs
    # A night that is red, or not whole, has nothing to promote.
    exit "$code"
    ;;
promote)
    perfgate github promote "$out"/*/results.json --onto "$BASE" \
        --reason "nightly run ${GITHUB_RUN_ID:-} of $(date -u +%F)"
    ;;
image)
    reference=$(perfgate image verify --reference-only)
    echo "base=${reference#pinned: }" >>"$GITHUB_OUTPUT"
    ;;
*)
    echo "::error title=perfgate::the action knows no command '$COMMAND'"
    exit 2
    ;;
esac
