#!/bin/sh
# A service of a role: appends numbered records to live data, each on disk before the next and before it is noted as written.
#   service.sh start|stop|health|write LIVE HOME NODE
verb=$1 live=$2 home=$3 node=$4
case $verb in
start)
    setsid "$0" write "$live" "$home" "$node" </dev/null >/dev/null 2>&1 &
    echo $! >"$home/pid"
    ;;
stop)
    kill "$(cat "$home/pid")" 2>/dev/null
    while kill -0 "$(cat "$home/pid")" 2>/dev/null; do sleep 0.01; done
    rm -f "$home/pid"
    ;;
health)
    [ -e "$home/pid" ] && kill -0 "$(cat "$home/pid")"
    ;;
write)
    number=0
    # Without a pause it takes an emulated machine whole.
    [ -e /sys/module/zfs ] && pause=0.5
    while :; do
        number=$((number + 1))
        record=$node-$$-$number
        echo "$record" >>"$live/records" && sync "$live/records" && echo "$record" >>"$home/written"
        [ -z "${pause:-}" ] || sleep "$pause"
    done
    ;;
esac
