#!/bin/busybox sh
# The lab's first process: modules, then the root file system, then stage2.sh in it.
B=/bin/busybox
$B mkdir -p /proc /sys /dev /lower /scratch /root
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
while read module; do $B insmod /modules/$module; done < /modules/list
. /lab/conf
# This machine's own files, read-only; what is written goes to a disk that is thrown away.
$B mount -t virtiofs -o ro labroot /lower
$B mount -t ext4 -o noatime,nobarrier,noauto_da_alloc /dev/vda /scratch
$B mkdir /scratch/upper /scratch/work /scratch/dirs
$B mount -t overlay -o lowerdir=/lower,upperdir=/scratch/upper,workdir=/scratch/work overlay /root
cd /root
$B mkdir -p proc sys dev run tmp
$B mount -t tmpfs -o mode=755 run run; $B mount -t tmpfs -o mode=1777 tmp tmp
$B mkdir run/lab run/lab/scratch; $B cp /lab/* run/lab/; $B cp /bin/busybox run/lab/busybox
$B mount -o move /scratch run/lab/scratch
$B mount -o move /proc proc; $B mount -o move /sys sys; $B mount -o move /dev dev
exec $B switch_root /root /run/lab/busybox sh /run/lab/stage2
