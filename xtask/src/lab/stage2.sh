# The lab's second stage: furnishes the machine, runs the command, tells its status, powers off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
B=/run/lab/busybox
. /run/lab/conf
port() {
  for port in /sys/class/virtio-ports/*; do
    [ "$($B cat $port/name)" != "$1" ] || echo /dev/${port##*/}
  done
}
$B mkdir -p /dev/pts /dev/shm /dev/mqueue /lib/modules
$B mount -t devpts -o gid=5,mode=620,ptmxmode=666 pts /dev/pts
$B mount -t tmpfs -o mode=1777 shm /dev/shm
$B mount -t mqueue mqueue /dev/mqueue
$B ln -sf /proc/self/fd /dev/fd
$B ln -sf /proc/self/fd/0 /dev/stdin; $B ln -sf /proc/self/fd/1 /dev/stdout; $B ln -sf /proc/self/fd/2 /dev/stderr
$B mount -o bind "$LAB_MODULES" /lib/modules

case $LAB_CGROUP in
v2)
  $B mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
  for controller in $($B cat /sys/fs/cgroup/cgroup.controllers); do
    echo +$controller > /sys/fs/cgroup/cgroup.subtree_control
  done;;
v1 | hybrid)
  $B mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
  if [ $LAB_CGROUP = hybrid ]; then
    $B mkdir /sys/fs/cgroup/unified; $B mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
  fi
  $B mkdir /sys/fs/cgroup/systemd; $B mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
  for set in cpuset cpu,cpuacct blkio memory devices freezer net_cls,net_prio perf_event hugetlb pids rdma misc; do
    $B mkdir /sys/fs/cgroup/$set
    $B mount -t cgroup -o $set cgroup /sys/fs/cgroup/$set 2> /dev/null || { $B rmdir /sys/fs/cgroup/$set; continue; }
    case $set in *,*) for one in ${set%,*} ${set#*,}; do $B ln -s $set /sys/fs/cgroup/$one; done;; esac
  done;;
esac

$B hostname lab; $B ip link set lo up; $B ip addr add 127.0.0.1/8 dev lo 2> /dev/null
[ "$LAB_KVM" = 0 ] || modprobe kvm_amd 2> /dev/null
modprobe tun 2> /dev/null
# The emulator forgets interrupts (watch.rs): who stands still for want of one is sent one this way.
$B cat $(port lab.nudge) > /dev/null 2>&1 &
. /run/lab/shares
. /run/lab/env
cd "$LAB_DIR" || cd /
if [ "$LAB_TTY" = 1 ]; then
  $B setsid -c /bin/sh /run/lab/command <> /dev/hvc0 >&0 2>&1; status=$?
else
  $B mkfifo /run/lab/out /run/lab/err
  $B cat /run/lab/out > $(port lab.out) & out=$!
  $B cat /run/lab/err > $(port lab.err) & err=$!
  input=/dev/null; [ "$LAB_STDIN" = 0 ] || input=$(port lab.in)
  $B setsid /bin/sh /run/lab/command < $input > /run/lab/out 2> /run/lab/err; status=$?
  # What the command left behind may hold the pipes: a second for it to let go.
  tries=0
  gone() { [ ! -d /proc/$1 ] || [ "$($B cut -d' ' -f3 /proc/$1/stat 2> /dev/null)" = Z ]; }
  while [ $tries -lt 20 ] && ! { gone $out && gone $err; }; do $B usleep 50000; tries=$((tries + 1)); done
fi
echo $status > $(port lab.status)
. /run/lab/sync
echo o > /proc/sysrq-trigger
while :; do $B sleep 1; done
