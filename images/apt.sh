# Sourced by the recipes that bootstrap Debian: how mmdebstrap is to be run on this machine.
#
# The packages come from wherever this machine's own apt takes them: its source lists and its
# Acquire settings (proxies, say) are handed over, so no mirror is named in this repository.

suite=bookworm

bootstrap_options=(
    --variant=minbase
    --format=tar
    --quiet
    # What a container never reads.
    --dpkgopt='path-exclude=/usr/share/doc/*'
    --dpkgopt='path-include=/usr/share/doc/*/copyright'
    --dpkgopt='path-exclude=/usr/share/man/*'
    --dpkgopt='path-exclude=/usr/share/info/*'
    --dpkgopt='path-exclude=/usr/share/locale/*'
    --dpkgopt='path-exclude=/usr/share/lintian/*'
    # The machine's apt settings and names stay on the machine.
    --customize-hook='rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/hostname "$1"/etc/resolv.conf'
    --customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/cache/debconf/*-old "$1"/var/log/*.log "$1"/var/log/apt'
)
while IFS= read -r line; do
    bootstrap_options+=("--aptopt=$line")
done < <(apt-config dump | grep -E '^Acquire::(https?|ftp|Check-Valid-Until|Check-Date|Retries)\b.* "[^"]' || true)

mirrors=()
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
    if [ -s "$list" ] && grep -qE "^(deb|Suites:).*\b$suite\b" "$list"; then
        mirrors+=("$list")
    fi
done

# bootstrap OUT [OPTION...]: writes a root file system tar of `$suite`.
bootstrap() {
    local out=$1
    shift
    mmdebstrap "${bootstrap_options[@]}" "$@" "$suite" "$out" "${mirrors[@]}"
}
