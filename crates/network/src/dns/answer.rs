//! PURE: what is answered to a query, given what is known of its subject.

use std::net::IpAddr;

use super::message::{self, A, AAAA, ANY, Code, IN, NotAQuestion, PTR, Question, Record, Subject};

/// Short, because containers come and go.
const TTL: u32 = 5;

/// What the networks know of one subject.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Zone {
    /// Addresses of everybody who is called so.
    pub addresses: Vec<IpAddr>,
    /// Names of whoever has the address.
    pub names: Vec<String>,
}

/// What to do with a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Send this.
    Reply(Vec<u8>),
    /// Ask somebody else.
    Forward,
    /// It was not a query.
    Ignore,
}

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram: the reply may have to be cut.
    Datagram,
    /// In a stream.
    Stream,
}

/// Decides. A name that is known here is never asked for elsewhere, whatever is asked about it.
#[must_use]
pub fn answer(query: &[u8], zone: &Zone, transport: Transport) -> Answer {
    let question = match Question::parse(query) {
        Ok(question) => question,
        Err(NotAQuestion::Noise) => return Answer::Ignore,
        Err(NotAQuestion::Refuse(code)) => {
            return Answer::Reply(message::reply(query, None, code, &[], TTL, usize::MAX));
        }
    };
    if question.class != IN && question.class != ANY {
        return Answer::Forward;
    }
    let records: Vec<Record> = match &question.subject {
        Subject::Name(_) if !zone.addresses.is_empty() => {
            let wanted = |address: &&IpAddr| match question.kind {
                A => address.is_ipv4(),
                AAAA => address.is_ipv6(),
                kind => kind == ANY,
            };
            let mut found: Vec<IpAddr> = zone.addresses.iter().filter(wanted).copied().collect();
            if !found.is_empty() {
                // Clients choose their ids by chance, and so, with them, who comes first.
                let turn = usize::from(message::id(query).unwrap_or(0)) % found.len();
                found.rotate_left(turn);
            }
            found.into_iter().map(Record::Address).collect()
        }
        Subject::Address(_) if !zone.names.is_empty() => match question.kind {
            PTR | ANY => zone.names.iter().cloned().map(Record::Name).collect(),
            _ => Vec::new(),
        },
        _ => return Answer::Forward,
    };
    let limit = match transport {
        Transport::Datagram => question.datagram(),
        Transport::Stream => usize::from(u16::MAX),
    };
    Answer::Reply(message::reply(query, Some(&question), Code::NoError, &records, TTL, limit))
}

/// What is answered when nobody else answered: a bare name is nobody, any other could not be looked up.
#[must_use]
pub fn unanswered(query: &[u8]) -> Vec<u8> {
    let question = Question::parse(query).ok();
    let code = match &question {
        Some(question) if question.is_single_label() => Code::NoSuchName,
        _ => Code::ServerFailure,
    };
    message::reply(query, question.as_ref(), code, &[], TTL, usize::MAX)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::{Name, RData, RecordType};
    use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
    use proptest::prelude::*;

    use super::*;

    fn query(name: &str, kind: RecordType, id: u16) -> Vec<u8> {
        let mut message = Message::new();
        message.set_id(id).set_message_type(MessageType::Query).set_op_code(OpCode::Query);
        message.set_recursion_desired(true);
        message.add_query(Query::query(Name::from_utf8(name).unwrap(), kind));
        message.to_bytes().unwrap()
    }

    fn zone(addresses: &[&str]) -> Zone {
        Zone { addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(), names: Vec::new() }
    }

    fn parsed(answer: Answer) -> Message {
        let Answer::Reply(bytes) = answer else { panic!("{answer:?}") };
        Message::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn answer_known_name_gives_all_addresses_of_the_family_rotated() {
        let zone = zone(&["172.18.0.2", "172.18.0.3", "fd00::2"]);
        let first = |id| {
            let message = parsed(answer(&query("DB.", RecordType::A, id), &zone, Transport::Datagram));
            assert_eq!(
                (message.id(), message.response_code(), message.answer_count()),
                (id, ResponseCode::NoError, 2)
            );
            assert!(message.recursion_available() && message.recursion_desired());
            message.answers()[0].data().to_string()
        };
        assert_eq!([first(4), first(5)], ["172.18.0.2", "172.18.0.3"]);
        let message = parsed(answer(&query("db.", RecordType::AAAA, 1), &zone, Transport::Datagram));
        assert_eq!(message.answers()[0].data().to_string(), "fd00::2");
    }

    #[test]
    fn answer_known_name_of_other_kind_is_empty_not_forwarded() {
        let message =
            parsed(answer(&query("db.", RecordType::MX, 1), &zone(&["10.0.0.1"]), Transport::Datagram));
        assert_eq!((message.response_code(), message.answer_count()), (ResponseCode::NoError, 0));
    }

    #[test]
    fn answer_unknown_is_forwarded() {
        for (name, kind) in [("example.com.", RecordType::A), ("1.0.0.10.in-addr.arpa.", RecordType::PTR)] {
            assert_eq!(answer(&query(name, kind, 1), &Zone::default(), Transport::Datagram), Answer::Forward);
        }
    }

    #[test]
    fn answer_backwards_names_the_container() {
        let zone = Zone { addresses: Vec::new(), names: vec!["db.web".to_owned()] };
        for name in [
            "2.0.18.172.in-addr.arpa.",
            "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.",
        ] {
            let message = parsed(answer(&query(name, RecordType::PTR, 1), &zone, Transport::Datagram));
            let RData::PTR(target) = message.answers()[0].data() else { panic!() };
            assert_eq!(target.to_string(), "db.web.");
        }
    }

    #[test]
    fn answer_too_many_for_a_datagram_is_truncated() {
        let all: Vec<String> = (1..=100).map(|n| format!("10.0.0.{n}")).collect();
        let zone = zone(&all.iter().map(String::as_str).collect::<Vec<_>>());
        let bytes = query("all.", RecordType::A, 0);
        let Answer::Reply(short) = answer(&bytes, &zone, Transport::Datagram) else { panic!() };
        assert!(short.len() <= 512);
        let short = Message::from_bytes(&short).unwrap();
        assert!(short.truncated() && short.answer_count() > 20);
        let long = parsed(answer(&bytes, &zone, Transport::Stream));
        assert!(!long.truncated());
        assert_eq!(long.answer_count(), 100);
        let mut message = Message::from_bytes(&bytes).unwrap();
        let mut edns = hickory_proto::op::Edns::new();
        edns.set_max_payload(4096);
        message.set_edns(edns);
        let long = parsed(answer(&message.to_bytes().unwrap(), &zone, Transport::Datagram));
        assert_eq!((long.truncated(), long.answer_count()), (false, 100));
    }

    #[test]
    fn unanswered_bare_name_does_not_exist() {
        let code =
            |name| Message::from_bytes(&unanswered(&query(name, RecordType::A, 7))).unwrap().response_code();
        assert_eq!(code("nobody."), ResponseCode::NXDomain);
        assert_eq!(code("example.com."), ResponseCode::ServFail);
    }

    #[test]
    fn answer_malformed_is_refused_or_ignored() {
        assert_eq!(answer(&[0; 5], &Zone::default(), Transport::Datagram), Answer::Ignore);
        let mut bytes = query("a.", RecordType::A, 9);
        bytes.truncate(14);
        assert_eq!(
            parsed(answer(&bytes, &Zone::default(), Transport::Datagram)).response_code(),
            ResponseCode::FormErr
        );
        let mut bytes = query("a.", RecordType::A, 9);
        bytes[2] |= 0x80;
        assert_eq!(answer(&bytes, &Zone::default(), Transport::Datagram), Answer::Ignore);
    }

    proptest! {
        #[test]
        fn answer_of_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = answer(&bytes, &zone(&["10.0.0.1"]), Transport::Datagram);
            let _ = unanswered(&bytes);
        }

        #[test]
        fn answer_of_damaged_query_never_panics_and_parses(
            name in "[a-zA-Z][a-zA-Z0-9]{0,20}(\\.[a-z0-9]{1,10}){0,5}", at in 0_usize..64, value in any::<u8>()
        ) {
            let mut bytes = query(&name, RecordType::A, 3);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            if let Answer::Reply(reply) = answer(&bytes, &zone(&["10.0.0.1", "fd00::1"]), Transport::Datagram) {
                prop_assert!(Message::from_bytes(&reply).is_ok());
            }
        }
    }
}
