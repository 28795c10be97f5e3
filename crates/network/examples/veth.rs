//! scratch
use std::os::fd::AsFd;
use std::time::Instant;
use cata_network::netlink::{Channel, message::Batch, route};
fn main() {
    let host = Channel::open(0).unwrap();
    let mut b = Batch::new();
    route::add_bridge(&mut b, "br9", [2, 3, 4, 5, 6, 7], None);
    host.apply(&b).unwrap();
    let br = rustix::net::netdevice::name_to_index(host.socket(), "br9").unwrap();
    let mut keep = vec![];
    let mut sums = vec![vec![]; 4];
    for n in 0..200u8 {
        let t = Instant::now();
        let host = &host;
        let (ns, own, ut) = std::thread::scope(|s| s.spawn(|| {
            let t = Instant::now();
            cata_sys::namespace::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
            let u = t.elapsed();
            (std::fs::File::open("/proc/thread-self/ns/net").unwrap(), Channel::open(0).unwrap(), u)
        }).join().unwrap());
        sums[0].push(ut);
        let _ = t;
        let t = Instant::now();
        let mut b = Batch::new();
        let name = format!("v{n}");
        route::add_veth(&mut b, &route::Veth { name: &name, bridge: br, peer: "eth0", peer_mac: [2, 1, 1, 1, 1, n], namespace: ns.as_fd(), mtu: None });
        host.apply(&b).unwrap();
        sums[1].push(t.elapsed());
        let t = Instant::now();
        let idx = rustix::net::netdevice::name_to_index(own.socket(), "eth0").unwrap();
        let mut b = Batch::new();
        route::set_up(&mut b, 1);
        own.apply(&b).unwrap();
        sums[2].push(t.elapsed());
        let t = Instant::now();
        let mut b = Batch::new();
        route::add_address(&mut b, idx, "10.9.0.2/16".parse().unwrap());
        route::set_up(&mut b, idx);
        route::add_default_route(&mut b, idx, "10.9.0.1".parse().unwrap());
        own.apply(&b).unwrap();
        sums[3].push(t.elapsed());
        keep.push(ns);
    }
    for (what, s) in ["unshare", "veth", "lo up", "eth0"].iter().zip(sums.iter_mut()) { let f = |r: std::ops::Range<usize>| { let mut p = s[r].to_vec(); p.sort(); p[p.len()/2] }; println!("{what}: first20 {:?} at100 {:?} last20 {:?}", f(0..20), f(90..110), f(180..200)); }
}
