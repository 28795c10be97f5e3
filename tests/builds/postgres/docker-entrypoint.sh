#!/usr/bin/env bash
# The entrypoint of the postgres image: makes the database cluster on the first start, then becomes the server.
#
# What it promises is what users of the well-known postgres image rely on:
#   POSTGRES_PASSWORD          the superuser's password; required unless POSTGRES_HOST_AUTH_METHOD=trust
#   POSTGRES_USER              the superuser's name (postgres)
#   POSTGRES_DB                a database to create (the superuser's name)
#   POSTGRES_INITDB_ARGS       further arguments of initdb
#   POSTGRES_INITDB_WALDIR     where the write-ahead log goes
#   POSTGRES_HOST_AUTH_METHOD  how clients from other hosts prove who they are (scram-sha-256)
#   PGDATA                     where the cluster is; an existing one is started as it is
#   /docker-entrypoint-initdb.d/*.sh, *.sql, *.sql.gz, *.sql.xz, *.sql.zst   run once, in order of their names
# The first four and POSTGRES_INITDB_WALDIR can be given as files: POSTGRES_PASSWORD_FILE=/path, and so on.
set -Eeuo pipefail

fail() {
    printf 'error: %s\n' "$@" >&2
    exit 1
}

# Sets VAR from VAR_FILE's content; both at once is a mistake; neither leaves the default.
take() {
    local var=$1 default=${2-} file_var="${1}_FILE"
    if [ -n "${!var-}" ] && [ -n "${!file_var-}" ]; then
        fail "both $var and $file_var are set (only one may be)"
    fi
    if [ -n "${!file_var-}" ]; then
        [ -r "${!file_var}" ] || fail "$file_var: cannot read ${!file_var}"
        export "$var=$(< "${!file_var}")"
    else
        export "$var=${!var-$default}"
    fi
    unset "$file_var"
}

take_settings() {
    take POSTGRES_PASSWORD
    take POSTGRES_USER postgres
    take POSTGRES_DB "$POSTGRES_USER"
    take POSTGRES_INITDB_ARGS
    take POSTGRES_INITDB_WALDIR
    # An empty value means the default too, as for the well-known image.
    : "${POSTGRES_USER:=postgres}" "${POSTGRES_DB:=$POSTGRES_USER}"
    : "${POSTGRES_HOST_AUTH_METHOD:=scram-sha-256}"
}

require_password() {
    if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
        fail 'the database is uninitialized and the superuser has no password' \
            'set POSTGRES_PASSWORD to a non-empty value, for example: run -e POSTGRES_PASSWORD=password' \
            'or allow every connection without one: POSTGRES_HOST_AUTH_METHOD=trust'
    fi
    if [ "$POSTGRES_HOST_AUTH_METHOD" = trust ]; then
        echo 'warning: POSTGRES_HOST_AUTH_METHOD=trust lets anyone who reaches the port in as superuser' >&2
    fi
}

# Directories are made and, when we are root, given to the server's user.
own_directories() {
    mkdir -p "$PGDATA" /var/run/postgresql
    chmod 700 "$PGDATA" 2> /dev/null || true
    chmod 3777 /var/run/postgresql 2> /dev/null || true
    if [ -n "${POSTGRES_INITDB_WALDIR-}" ]; then
        mkdir -p "$POSTGRES_INITDB_WALDIR"
        chmod 700 "$POSTGRES_INITDB_WALDIR"
    fi
    if [ "$(id -u)" = 0 ]; then
        find "$PGDATA" ${POSTGRES_INITDB_WALDIR:+"$POSTGRES_INITDB_WALDIR"} \! -user postgres -exec chown postgres '{}' +
        find /var/run/postgresql \! -user postgres -exec chown postgres '{}' +
    fi
}

init_cluster() {
    local -a extra=()
    # The arguments are one string with the shell's quoting, so that a value may hold spaces.
    eval "extra=($POSTGRES_INITDB_ARGS)"
    if [ -n "$POSTGRES_INITDB_WALDIR" ]; then
        extra+=(--waldir "$POSTGRES_INITDB_WALDIR")
    fi
    initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") "${extra[@]}"
    # The server must listen where a published port leads; who may enter is the last line of pg_hba.conf.
    sed -i "s/^#\?listen_addresses *=.*/listen_addresses = '*'/" "$PGDATA/postgresql.conf"
    printf '\nhost all all all %s\n' "$POSTGRES_HOST_AUTH_METHOD" >> "$PGDATA/pg_hba.conf"
}

# A server for the first-start scripts only: reachable by unix socket, not over the network.
temporary_server() {
    case $1 in
        start)
            # NOTIFY_SOCKET would make a supervisor believe that the real server is up.
            NOTIFY_SOCKET='' PGUSER=${PGUSER:-$POSTGRES_USER} \
                pg_ctl --pgdata="$PGDATA" --wait --options="-c listen_addresses='' -p ${PGPORT:-5432}" start
            ;;
        stop) PGUSER=${PGUSER:-$POSTGRES_USER} pg_ctl --pgdata="$PGDATA" --mode=fast --wait stop ;;
    esac
}

sql() {
    PGHOST='' PGHOSTADDR='' PGPASSWORD=$POSTGRES_PASSWORD \
        psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --no-password --no-psqlrc "$@"
}

create_database() {
    local known
    known=$(sql --dbname postgres --tuples-only --set db="$POSTGRES_DB" \
        <<< "select 1 from pg_database where datname = :'db'")
    if [ -z "$known" ]; then
        sql --dbname postgres --set db="$POSTGRES_DB" <<< 'create database :"db"'
    fi
}

run_init_files() {
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh)
                # A script without the executable bit is sourced, and can then use our functions.
                if [ -x "$file" ]; then
                    echo "$0: running $file"
                    "$file"
                else
                    echo "$0: sourcing $file"
                    # shellcheck disable=SC1090
                    . "$file"
                fi
                ;;
            *.sql) echo "$0: running $file"; sql --dbname "$POSTGRES_DB" -f "$file" ;;
            *.sql.gz) echo "$0: running $file"; gunzip -c "$file" | sql --dbname "$POSTGRES_DB" ;;
            *.sql.xz) echo "$0: running $file"; xzcat "$file" | sql --dbname "$POSTGRES_DB" ;;
            *.sql.zst) echo "$0: running $file"; zstd -dc "$file" | sql --dbname "$POSTGRES_DB" ;;
            '/docker-entrypoint-initdb.d/*') ;;
            *) echo "$0: ignoring $file" ;;
        esac
    done
}

first_start() {
    require_password
    # Looked at before hours of loading, not after.
    ls /docker-entrypoint-initdb.d/ > /dev/null
    init_cluster
    export PGPASSWORD=${PGPASSWORD:-$POSTGRES_PASSWORD}
    temporary_server start
    create_database
    run_init_files
    temporary_server stop
    unset PGPASSWORD
    echo
    echo 'PostgreSQL init process complete; ready for start up.'
    echo
}

# Whether the arguments only ask for words, so that no cluster is needed.
only_asks() {
    local arg
    for arg; do
        case $arg in
            -'?' | --help | --describe-config | -V | --version) return 0 ;;
        esac
    done
    return 1
}

main() {
    # `run postgres -c shared_buffers=1GB`: options alone are the server's.
    if [ "${1:0:1}" = - ]; then
        set -- postgres "$@"
    fi
    if [ "${1-}" != postgres ] || only_asks "$@"; then
        exec "$@"
    fi

    take_settings
    own_directories
    if [ "$(id -u)" = 0 ]; then
        # The server refuses to run as root; its user has no capability and gets none by exec.
        exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$BASH_SOURCE" "$@"
    fi

    if [ -s "$PGDATA/PG_VERSION" ]; then
        echo
        echo 'PostgreSQL Database directory appears to contain a database; Skipping initialization'
        echo
    else
        first_start
    fi
    exec "$@"
}

main "$@"
