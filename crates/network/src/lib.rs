//! links, addresses, firewall, published ports, names.
