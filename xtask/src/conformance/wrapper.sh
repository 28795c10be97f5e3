#!/bin/sh
# An OCI runtime for suites whose specifications are newer than it, and whose command lines have the id before the options.
runtime=@RUNTIME@
bundle=. last= command=
for word in "$@"; do
    case $last in --bundle | -b) bundle=$word ;; esac
    case $word in
        --bundle=*) bundle=${word#*=} ;;
        create | run) command=${command:-$word} ;;
    esac
    last=$word
done
if [ -z "$command" ]; then
    exec "$runtime" "$@"
fi
sed -i 's/"ociVersion": *"[^"]*"/"ociVersion":"1.0.2"/' "$bundle/config.json" 2>/dev/null
# Everything up to the command, its options, and then the id that came before them.
count=$# id= after=
while [ "$count" -gt 0 ]; do
    word=$1
    shift
    count=$((count - 1))
    case $after in
        command)
            after=done
            case $word in
                -*) ;;
                *) id=$word; continue ;;
            esac
            ;;
        "") [ "$word" = "$command" ] && after=command ;;
    esac
    set -- "$@" "$word"
done
exec "$runtime" "$@" ${id:+"$id"}
