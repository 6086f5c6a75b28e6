//! Addresses that nothing from outside may lead to. It must never be asked of a name: what is dialled is what is judged.
//!
//! Source: IANA's registries of special-purpose addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Those that are not of one place in the Internet: of this host, of its link, of a private network, of a provider's network,
/// of tests and documents, of many at once.
const CLOSED_4: [Ipv4Net; 14] = [
    Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 8),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 88, 99, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15),
    Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 0), 24),
    // Multicast, reserved and broadcast.
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// All that is given out of the sixth version; what is not here is loopback, unspecified, local, mapped, multicast or nothing.
const GLOBAL_6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Of those, what leads somewhere else than it seems to, or nowhere: Teredo and other protocols, 6to4, documents.
const CLOSED_6: [Ipv6Net; 4] = [
    Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    Ipv6Net::new_assert(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    Ipv6Net::new_assert(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Where a network that has only the sixth version reaches those of the fourth.
const TRANSLATED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Whether nothing from outside may lead to an address. `closed` are ranges besides those that are closed everywhere.
#[must_use]
pub fn is_closed(address: IpAddr, closed: &[IpNet]) -> bool {
    if closed.iter().any(|range| range.contains(&address)) {
        return true;
    }
    match address {
        IpAddr::V4(address) => CLOSED_4.iter().any(|range| range.contains(&address)),
        IpAddr::V6(address) => match within(address) {
            Some(address) => is_closed(IpAddr::V4(address), closed),
            None => !GLOBAL_6.contains(&address) || CLOSED_6.iter().any(|range| range.contains(&address)),
        },
    }
}

/// The address of the fourth version that one of the sixth stands for.
fn within(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., a, b, c, d] = address.octets();
    let translated = TRANSLATED.contains(&address).then_some(Ipv4Addr::new(a, b, c, d));
    address.to_ipv4_mapped().or(translated)
}

#[cfg(test)]
mod tests {
    use super::is_closed;

    #[test]
    fn what_is_of_one_place_in_the_internet_is_open() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450:4001:82a::200e",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
        ] {
            assert!(!is_closed(address.parse().unwrap(), &[]), "{address}");
        }
    }

    #[test]
    fn everything_else_is_closed_in_each_of_its_forms() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::10.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1.1.1.1",
            "2002:7f00:1::",
            "2002:0101:0101::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:db8::1",
            "fc00::1",
            "fd12:3456:789a::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
        ] {
            assert!(is_closed(address.parse().unwrap(), &[]), "{address}");
        }
    }

    #[test]
    fn ranges_can_be_closed_besides() {
        let closed = ["52.0.0.0/8".parse().unwrap(), "2a00::/16".parse().unwrap()];
        for (address, expected) in [
            ("52.1.2.3", true),
            ("::ffff:52.1.2.3", true),
            ("64:ff9b::52.1.2.3", true),
            ("2a00::1", true),
            ("53.1.2.3", false),
            ("2a01::1", false),
        ] {
            assert_eq!(is_closed(address.parse().unwrap(), &closed), expected, "{address}");
        }
    }
}
