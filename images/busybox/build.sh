#!/usr/bin/env bash
# build.sh OUT: a root file system tar made of one static busybox and a link for each applet.
set -euo pipefail
out=$1

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
mkdir -p "$root"/{bin,dev,etc,home,proc,root,run,sbin,sys,usr/bin,usr/sbin,var/spool/mail,var/www,var/tmp,tmp}
chmod 1777 "$root/tmp" "$root/var/tmp"
chmod 700 "$root/root"

install -m 755 "$(command -v busybox)" "$root/bin/busybox"
for applet in $("$root/bin/busybox" --list); do
    [ "$applet" = busybox ] || ln "$root/bin/busybox" "$root/bin/$applet"
done

cat > "$root/etc/passwd" <<'PASSWD'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
PASSWD
cat > "$root/etc/group" <<'GROUP'
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
mail:x:8:
wheel:x:10:root
www-data:x:33:
users:x:100:
nogroup:x:65534:
GROUP
printf 'hosts: files dns\n' > "$root/etc/nsswitch.conf"

tar --create --file="$out" --directory="$root" --sort=name --numeric-owner --owner=0 --group=0 \
    --mtime='2025-01-01 00:00:00Z' .
