//! Which addresses a webhook is never sent to: whatever is not a public unicast address, whichever way it is written.
//!
//! The ranges are those of IANA's special-purpose registries for IPv4 and IPv6 that are not globally reachable. An IPv6 address
//! that carries an IPv4 one inside is judged by that one too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Networks of IPv4 that are not public: address, length of the prefix.
const REFUSED_V4: [([u8; 4], u32); 17] = [
    ([0, 0, 0, 0], 8),       // this network, unspecified
    ([10, 0, 0, 0], 8),      // private
    ([100, 64, 0, 0], 10),   // carrier-grade NAT
    ([127, 0, 0, 0], 8),     // loopback
    ([169, 254, 0, 0], 16),  // link-local, and the metadata service of clouds
    ([172, 16, 0, 0], 12),   // private
    ([192, 0, 0, 0], 24),    // protocol assignments
    ([192, 0, 2, 0], 24),    // documentation
    ([192, 31, 196, 0], 24), // AS112
    ([192, 52, 193, 0], 24), // automatic multicast tunnelling
    ([192, 88, 99, 0], 24),  // 6to4 relays
    ([192, 168, 0, 0], 16),  // private
    ([192, 175, 48, 0], 24), // AS112
    ([198, 18, 0, 0], 15),   // benchmarks
    ([198, 51, 100, 0], 24), // documentation
    ([203, 0, 113, 0], 24),  // documentation
    ([224, 0, 0, 0], 3),     // multicast, reserved, broadcast
];

/// Networks of IPv6 within 2000::/3, the only public one, that are not public.
const REFUSED_V6: [([u16; 8], u32); 5] = [
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),      // protocol assignments, Teredo, ORCHID, benchmarks
    ([0x2001, 0x0db8, 0, 0, 0, 0, 0, 0], 32), // documentation
    ([0x2620, 0x004f, 0x8000, 0, 0, 0, 0, 0], 48), // AS112
    ([0x3ffe, 0, 0, 0, 0, 0, 0, 0], 16),      // 6bone, returned
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),      // documentation
];

/// Whether nothing may be sent to the address.
pub fn is_refused(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_refused_v4(address),
        IpAddr::V6(address) => is_refused_v6(address),
    }
}

fn is_refused_v4(address: Ipv4Addr) -> bool {
    REFUSED_V4.iter().any(|(network, length)| {
        let mask = u32::MAX << (32 - length);
        u32::from(address) & mask == u32::from_be_bytes(*network)
    })
}

fn is_refused_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match segments {
        // NAT64: public if the address inside is.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => return is_refused_v4(v4(high, low)),
        // 6to4.
        [0x2002, high, low, ..] => return is_refused_v4(v4(high, low)),
        _ => {}
    }
    // Beyond 2000::/3 lie loopback, mapped and compatible addresses, unique local, link-local and multicast ones.
    let is_global_unicast = segments[0] & 0xe000 == 0x2000;
    !is_global_unicast
        || REFUSED_V6.iter().any(|(network, length)| {
            let mask = u128::MAX << (128 - length);
            u128::from(address) & mask == u128::from(Ipv6Addr::from(*network))
        })
}

/// The address that a host is, if it is written as one: also in the decimal, octal and hexadecimal forms of `inet_aton`, and an
/// IPv6 address in brackets, with a zone or without.
pub fn literal(host: &str) -> Option<IpAddr> {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address = inner.split('%').next().unwrap_or(inner);
        return address.parse().map(IpAddr::V6).ok();
    }
    inet_aton(host.strip_suffix('.').unwrap_or(host)).map(IpAddr::V4)
}

/// One to four numbers; the last one fills the bytes that are left.
fn inet_aton(host: &str) -> Option<Ipv4Addr> {
    let parts = host.split('.').map(number).collect::<Option<Vec<u64>>>()?;
    let (last, first) = parts.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 255) || *last >= 1 << (8 * (4 - first.len())) {
        return None;
    }
    let address = first.iter().enumerate().fold(*last, |address, (index, part)| address | part << (8 * (3 - index)));
    u32::try_from(address).ok().map(Ipv4Addr::from)
}

fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    if digits.starts_with('+') { None } else { u64::from_str_radix(digits, radix).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_all(expected: bool, addresses: &[&str]) {
        for address in addresses {
            let parsed: IpAddr = address.parse().expect("an address");
            assert_eq!(is_refused(parsed), expected, "{address}");
        }
    }

    #[test]
    fn only_public_ipv4_addresses_are_reached() {
        assert_all(false, &["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "192.0.3.1"]);
        assert_all(false, &["169.253.0.1", "198.17.255.255", "198.20.0.0", "223.255.255.254", "11.0.0.1", "192.167.1.1"]);
        assert_all(true, &["0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.0.1"]);
        assert_all(true, &["169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1"]);
        assert_all(true, &["192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9"]);
        assert_all(true, &["224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"]);
    }

    #[test]
    fn only_public_ipv6_addresses_are_reached() {
        assert_all(false, &["2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "2001:4860:4860::8888", "2001:200::1"]);
        assert_all(true, &["::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1", "100::1", "5f00::1"]);
        assert_all(true, &["2001:db8::1", "2001:2::1", "2001:10::1", "2001:20::1", "3fff::1", "3ffe::1", "64:ff9b:1::1"]);
    }

    #[test]
    fn an_ipv4_address_inside_an_ipv6_one_is_judged() {
        assert_all(
            true,
            &["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "::8.8.8.8", "::ffff:0:1.1.1.1"],
        );
        assert_all(true, &["64:ff9b::10.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::", "2002:a00:1::1", "2001:0:4136:e378::1"]);
        assert_all(false, &["64:ff9b::8.8.8.8", "2002:808:808::1"]);
    }

    #[test]
    fn an_address_is_recognised_however_it_is_written() {
        let loopback = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        for host in
            ["127.0.0.1", "2130706433", "0x7f000001", "0x7F.1", "0177.0.0.1", "127.1", "017700000001", "127.0.1", "127.0.0.1."]
        {
            assert_eq!(literal(host), loopback, "{host}");
        }
        assert_eq!(literal("[::1]"), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        assert_eq!(literal("[fe80::1%25eth0]"), "fe80::1".parse().ok());
        for host in ["example.com", "1.2.3.4.5", "256.1.1.1", "", "0x", "a.1", "4294967296", "1..2", "+1"] {
            assert_eq!(literal(host), None, "{host}");
        }
    }
}
