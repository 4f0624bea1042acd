#!/usr/bin/env bash
# FOR TRYING OUT ONLY: a request through RabbitMQ's management HTTP API, with curl and jq.
#
#     bash curl.sh '{"prompt": "a lighthouse at dawn", "num_frames": 49}' [REQUEST_ID]
#     bash curl.sh cancel REQUEST_ID
#
# NOT A PRODUCER: there are no publisher confirms that a program could keep count of (an answer that does not come leaves
# the request's fate open), every call is a connection of its own, nothing is pushed (it asks once a second), and what it
# reads is gone from the queue before it is printed. The management user needs the tag `management`.
set -euo pipefail

api=${RABBIT_MANAGEMENT_URL:-${DROVER_LOCAL_RABBIT_MANAGEMENT_URL:-http://guest:guest@127.0.0.1:15672}}/api
vhost=${RABBIT_VHOST:-%2F} # as in a URL: %2F is the default one, /

call() { # METHOD PATH [BODY]: the answer's body; ends the script with what the broker said
    local answer status
    answer=$(curl -sS -m 30 -X "$1" -H 'content-type: application/json' -w '\n%{http_code}' ${3+-d "$3"} "$api$2") || exit 1
    status=${answer##*$'\n'} answer=${answer%$'\n'*}
    if [ "$status" -ge 300 ]; then
        echo "$1 $2: $status $answer (has drover been started on this broker and virtual host?)" >&2
        exit 1
    fi
    printf '%s' "$answer"
}

publish() { # ROUTING_KEY BODY
    local message
    message=$(jq -n --arg key "$1" --arg body "$2" --arg id "$request_id" --arg inbox "$inbox" '{
        routing_key: $key, payload: $body, payload_encoding: "string",
        properties: {delivery_mode: 2, content_type: "application/json", correlation_id: $id, reply_to: $inbox}}')
    [ "$(call POST "/exchanges/$vhost/generation.commands/publish" "$message" | jq .routed)" = true ] || {
        echo "no queue took the message: does drover run on this broker and virtual host?" >&2
        exit 1
    }
}

follow() { # prints the events until the terminal one
    local messages name
    for _ in {1..600}; do
        # One at a time, and taken off the queue by the very call.
        messages=$(call POST "/queues/$vhost/$inbox/get" '{"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"}')
        if [ "$messages" = "[]" ]; then
            sleep 1
            continue
        fi
        event=$(jq --arg id "$request_id" '.[0] | .properties.correlation_id as $of | .payload | fromjson
            | select(.subject == $id or $of == $id)' <<<"$messages")
        [ -n "$event" ] || continue
        name=$(jq -r '.type | ltrimstr("drover.") | rtrimstr(".v1")' <<<"$event")
        jq -r --arg name "$name" '[$name, (.data.outputs[].url | values)] | join(" ")' <<<"$event"
        case $name in *.succeeded | *.failed | *.cancelled | *.expired | *.rejected) return ;; esac
    done
    echo "nothing ended within ten minutes: ask again with the same id" >&2
    exit 1
}

case ${1-} in
'') sed -n '2,6p' "$0" >&2 && exit 1 ;;
cancel) request_id=${2:?the id of the request} ;;
*) request_id=${2:-$(cat /proc/sys/kernel/random/uuid)} ;;
esac
inbox=try-$(tr -c 'A-Za-z0-9\n' - <<<"$request_id")-$$
call PUT "/queues/$vhost/$inbox" '{"durable": true, "arguments": {"x-queue-type": "quorum", "x-expires": 600000}}'
trap 'call DELETE "/queues/$vhost/$inbox"' EXIT

call POST "/bindings/$vhost/e/generation.events/q/$inbox" '{"routing_key": "generation.*"}' >/dev/null

if [ "$1" = cancel ]; then
    publish generation.cancel "$(jq -n --arg id "$request_id" '{request_id: $id}')"
else
    request=$(jq -n --arg id "$request_id" --argjson input "$1" '{request_id: $id, input: $input}') || exit 1
    publish generation.request "$request"
fi
echo "request_id: $request_id"
follow
jq -r '.data.error // empty | "\(.code): \(.message)", ((.details // [])[] | "  \(.path): \(.message)")' <<<"$event" >&2
jq -e '.data.status | IN("succeeded", "partial")' <<<"$event" >/dev/null
