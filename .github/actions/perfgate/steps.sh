#!/usr/bin/env bash
# One command of the action. Inputs come as variables and are never part of a command line's text.
set -euo pipefail

out=perfgate-out
# In a container the checkout may be another user's; git is told that it is meant, for this job alone.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=$PWD

# A part that is left out, where people look: in the log and in the summary.
note() {
    echo "::notice title=perfgate::$1"
    printf '%s\n\n' "$1" >>"$GITHUB_STEP_SUMMARY"
}

# The image is ours, built on the locked one: our own registry is allowed beside NGC, no other.
verify() {
    if [ -n "$IMAGE" ] && [ -f docker/image.lock ]; then
        perfgate image verify --reference "$IMAGE" \
            --allow "${PERFGATE_REGISTRY:-ghcr.io/${GITHUB_REPOSITORY_OWNER,,}}"
        export PERFGATE_IMAGE_DIGEST=${IMAGE##*@}
    fi
}

# Runs perfgate into a folder, shows what it found whatever that is, and ends as it ended.
measure() {
    local folder=$1 code=0 token
    shift
    # What a model prints must not be taken for commands to the runner.
    token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    echo "::stop-commands::$token"
    perfgate run "$@" --out "$folder" || code=$?
    echo "::$token::"
    if [ -f "$folder/results.json" ]; then
        perfgate github annotate "$folder/results.json" || true
    fi
    return "$code"
}

case $COMMAND in
plan)
    perfgate github plan
    ;;
gate)
    # A pull request's event has its branch in GITHUB_BASE_REF; the base commit in it may be older than the one that
    # GitHub merged into. Both settings are given, also empty: a change cannot choose its own base.
    target=$BASE
    if [ -n "${GITHUB_BASE_REF:-}" ]; then target=''; fi
    # The judge comes from the base commit: a change cannot loosen what it is judged by.
    verify
    if [ -d .perfgate/engines ]; then
        echo "engines that main built last night: $(find .perfgate/engines -name engine | wc -l)"
    fi
    measure "$out" --require-baseline --policy-from base --base '' --target "$target" ${LEG:+--leg "$LEG"}
    ;;
publish)
    perfgate github publish
    ;;
nightly)
    verify
    code=0
    # Main is its own base: it is held against the commit that each case's baseline was promoted from, so that
    # what many merges lost together is seen. A case without a baseline is no failure: its first is proposed.
    measure "$out" --remeasure --base baseline ${LEG:+--leg "$LEG"} || code=$?
    if [ -n "${PERFGATE_ANCHOR:-}" ]; then
        held=0
        # A leg of its own, so that its issues are apart from tonight's; the step's outputs stay tonight's.
        GITHUB_OUTPUT=/dev/null measure "$out/anchor" --anchor "$PERFGATE_ANCHOR" \
            --leg "${LEG:-this}-vs-$PERFGATE_ANCHOR" || held=$?
        if [ "$held" = 1 ] || [ "$code" = 0 ]; then code=$held; fi
    else
        note "Not held against a release: set the variable PERFGATE_ANCHOR to a tag of \`perfgate release\`."
    fi
    if [ "${PERFGATE_ENGINES:-}" = true ] && [ -d .perfgate/engines ]; then
        # Out of the hidden folder, which is not uploaded.
        mv .perfgate/engines "$out/engines"
    fi
    exit "$code"
    ;;
report)
    code=0
    mkdir -p legs
    perfgate merge legs --out "$out" --trends trends/index.html || code=$?
    if [ ! -f "$out/comment.md" ]; then
        note "No results arrived from any runner."
        exit "$code"
    fi
    cat "$out/comment.md" >>"$GITHUB_STEP_SUMMARY"
    shards=(legs)
    if [ -d anchors ] && [ -n "$(find anchors -name results.json)" ]; then
        shards+=(anchors)
        # It turns its own job red and has its own issues; tonight's proposals do not wait for a release.
        PERFGATE_LEGS='' perfgate merge anchors --out "$out/anchor" || true
        printf '\n## Against the release\n\n' >>"$GITHUB_STEP_SUMMARY"
        cat "$out/anchor/comment.md" >>"$GITHUB_STEP_SUMMARY"
    fi
    perfgate github issues "${shards[@]}"
    # A night that is red, or not whole, has nothing to promote.
    exit "$code"
    ;;
last)
    perfgate github last "$ARTIFACT" --branch "$BASE"
    ;;
history)
    if [ -z "${PERFGATE_HISTORY:-}" ]; then
        export PERFGATE_HISTORY=perfgate-history/history.sqlite
        note "The history is a file that is handed on from night to night: the secret PERFGATE_HISTORY names a \
team's PostgreSQL instead."
    fi
    shopt -s nullglob
    results=("$out"/*/results.json)
    if [ "${#results[@]}" = 0 ]; then
        note "No results arrived: the history and the site stay as they are."
        exit 3
    fi
    perfgate history add "${results[@]}" --branch "$BASE"
    perfgate site --out "$out/trends"
    for path in "${results[@]}"; do
        perfgate report "$path" --format html --history "$PERFGATE_HISTORY" -o "${path%/*}/report.html"
    done
    perfgate trend --branch "$BASE" >"$RUNNER_TEMP/trend"
    # A summary above 1 MiB would be dropped whole.
    {
        echo '```text'
        head -c 200000 "$RUNNER_TEMP/trend"
        echo '```'
    } >>"$GITHUB_STEP_SUMMARY"
    if [ "${PERFGATE_PAGES:-}" != true ]; then
        note "The site is in the artifact perfgate-site: the variable PERFGATE_PAGES, set to true, publishes it."
    fi
    ;;
tell)
    code=0
    known=()
    if [ -d baselines ]; then known=(--baselines baselines); fi
    mapfile -t legs < <(python3 -c 'import json, os; print(*json.loads(os.environ["PERFGATE_LEGS"]), sep="\n")')
    if [ -n "${PERFGATE_WEBHOOK_TEAM:-}" ]; then
        if [ -z "${PERFGATE_WEBHOOK_TEAM_SECRET:-}" ]; then unset PERFGATE_WEBHOOK_TEAM_SECRET; fi
        for leg in "${legs[@]}"; do
            # A leg without results is a night that was missed, and is told.
            perfgate alert "$out/$leg/results.json" --state perfgate-alerts/state.json "${known[@]}" || code=$?
        done
    else
        note "No alert is sent: set the secret PERFGATE_WEBHOOK_TEAM in the environment perfgate-nightly."
    fi
    if [ -n "${PERFGATE_PUSHGATEWAY:-}" ]; then
        for leg in "${legs[@]}"; do
            [ -f "$out/$leg/results.json" ] || continue
            perfgate metrics "$out/$leg/results.json" --pushgateway "$PERFGATE_PUSHGATEWAY" || code=$?
        done
    else
        note "No metrics are pushed: set the variable PERFGATE_PUSHGATEWAY to a Pushgateway's URL."
    fi
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
