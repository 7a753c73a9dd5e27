//! Certificates as both ends of a connection see them: real handshakes, in
//! memory.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail like the tests themselves"
)]

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use vimana_model::{HostId, Timestamp};
use vimana_pki::{
    Authority, CertificateRequest, CurrentIdentity, Fingerprint, HostKey, Identity, PeerIdentity,
    PkiError, Serial, first_contact, server_config,
};

const DAY_MS: i64 = 24 * 3600 * 1000;
const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);
const LIFE_DAYS: i64 = 90;

fn serial(n: u8) -> Serial {
    Serial::from_random([n; 16])
}

fn host(n: u8) -> HostId {
    HostId::from_parts(1, [n; 10])
}

fn authority() -> Authority {
    Authority::generate(serial(1)).unwrap()
}

/// The server's end, with its clock so many days off.
fn server(authority: &Authority, days_off: i64) -> Arc<ServerConfig> {
    let certificate = authority.certify_server(serial(2)).unwrap();
    let now = move || NOW.plus_ms(days_off * DAY_MS);
    Arc::new(server_config(authority, certificate, now).unwrap())
}

fn identity(authority: &Authority, n: u8) -> Identity {
    let key = HostKey::generate().unwrap();
    let request = CertificateRequest::from_pem(&key.request().unwrap()).unwrap();
    let expires_at = NOW.plus_ms(LIFE_DAYS * DAY_MS);
    let issued = authority
        .certify_host(&request, host(n), serial(n), expires_at)
        .unwrap();
    Identity::new(&key, &issued.pem, authority.certificate_pem()).unwrap()
}

fn agent(identity: Identity) -> Arc<ClientConfig> {
    let current = Arc::new(CurrentIdentity::default());
    current.set(identity);
    Arc::new(current.client_config().unwrap())
}

/// Shakes hands over a wire of memory; who the server sees, or who refused.
fn shake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Result<Option<PeerIdentity>, String> {
    // The address says nothing: agents know the server by its certificate.
    let address = ServerName::try_from("127.0.0.1").unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), address).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let mut wire = Vec::new();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() {
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server
            .process_new_packets()
            .map_err(|error| format!("server: {error}"))?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client
            .process_new_packets()
            .map_err(|error| format!("client: {error}"))?;
        wire.clear();
    }
    let shown = server.peer_certificates().and_then(<[_]>::first);
    Ok(shown.map(|der| PeerIdentity::from_der(der).unwrap()))
}

#[test]
fn a_host_and_its_server_know_each_other() {
    let authority = authority();
    let identity = identity(&authority, 7);
    let expected = identity.peer();
    assert_eq!(identity.authority(), authority.fingerprint());
    let seen = shake(&agent(identity), &server(&authority, 0)).unwrap();
    assert_eq!(seen, Some(expected));
    assert_eq!(expected.host_id, host(7));
    assert_eq!(expected.serial, serial(7));
    assert_eq!(expected.expires_at, NOW.plus_ms(LIFE_DAYS * DAY_MS));
}

#[test]
fn whoever_has_not_joined_gets_a_connection_and_no_name() {
    let authority = authority();
    let client = Arc::new(first_contact(authority.fingerprint()).unwrap());
    assert_eq!(shake(&client, &server(&authority, 0)), Ok(None));
}

#[test]
fn a_first_contact_believes_only_the_authority_it_was_told() {
    let (ours, theirs) = (authority(), authority());
    let client = Arc::new(first_contact(ours.fingerprint()).unwrap());
    let refusal = shake(&client, &server(&theirs, 0)).unwrap_err();
    assert!(refusal.contains("UnknownIssuer"), "{refusal}");
}

#[test]
fn certificates_of_another_installation_are_worth_nothing() {
    let (ours, theirs) = (authority(), authority());
    let stranger = Arc::new(CurrentIdentity::default());
    let key = HostKey::generate().unwrap();
    let request = CertificateRequest::from_pem(&key.request().unwrap()).unwrap();
    let issued = theirs
        .certify_host(&request, host(1), serial(1), NOW.plus_ms(DAY_MS))
        .unwrap();
    // Of their authority, and believing ours.
    stranger.set(Identity::new(&key, &issued.pem, ours.certificate_pem()).unwrap());
    let client = Arc::new(stranger.client_config().unwrap());
    let refusal = shake(&client, &server(&ours, 0)).unwrap_err();
    assert!(
        refusal.starts_with("server: invalid peer certificate"),
        "{refusal}"
    );
    let refusal = shake(&agent(identity(&ours, 1)), &server(&theirs, 0)).unwrap_err();
    assert!(
        refusal.starts_with("client: invalid peer certificate"),
        "{refusal}"
    );
}

#[test]
fn an_agent_that_has_not_joined_believes_nobody() {
    let current = Arc::new(CurrentIdentity::default());
    let client = Arc::new(current.client_config().unwrap());
    let refusal = shake(&client, &server(&authority(), 0)).unwrap_err();
    assert!(refusal.contains("has not joined"), "{refusal}");
}

#[test]
fn clocks_that_are_a_month_off_change_nothing() {
    let authority = authority();
    for days_off in [-30, 0, 30] {
        let client = agent(identity(&authority, 3));
        for ms in [-3_600_000, 0, 3_600_000] {
            let certificate = authority.certify_server(serial(2)).unwrap();
            let now = move || NOW.plus_ms(days_off * DAY_MS + ms);
            let server = Arc::new(server_config(&authority, certificate, now).unwrap());
            assert!(shake(&client, &server).unwrap().is_some(), "{days_off} d");
        }
    }
    // Not even one that was never set.
    let client = agent(identity(&authority, 3));
    let long_ago = -NOW.as_ms() / DAY_MS;
    assert!(shake(&client, &server(&authority, long_ago)).is_ok());
}

#[test]
fn an_expired_certificate_is_refused() {
    let authority = authority();
    let client = agent(identity(&authority, 3));
    assert!(shake(&client, &server(&authority, LIFE_DAYS - 1)).is_ok());
    let refusal = shake(&client, &server(&authority, LIFE_DAYS + 1)).unwrap_err();
    assert!(refusal.contains("expired"), "{refusal}");
}

#[test]
fn a_renewed_identity_is_shown_from_the_next_connection_on() {
    let authority = authority();
    let current = Arc::new(CurrentIdentity::default());
    let client = Arc::new(current.client_config().unwrap());
    for n in [4, 5] {
        current.set(identity(&authority, n));
        let seen = shake(&client, &server(&authority, 0)).unwrap();
        assert_eq!(seen.unwrap().serial, serial(n));
    }
}

#[test]
fn a_host_cannot_pose_as_the_server() {
    let authority = authority();
    let key = HostKey::generate().unwrap();
    let request = CertificateRequest::from_pem(&key.request().unwrap()).unwrap();
    let issued = authority
        .certify_host(&request, host(9), serial(9), NOW.plus_ms(DAY_MS))
        .unwrap();
    let pem = |text: &str| {
        use rustls::pki_types::pem::PemObject as _;
        rustls::pki_types::CertificateDer::from_pem_slice(text.as_bytes()).unwrap()
    };
    let chain = vec![pem(&issued.pem), pem(authority.certificate_pem())];
    let key = rustls::pki_types::pem::PemObject::from_pem_slice(key.to_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let impostor = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let impostor = Arc::new(impostor);
    for client in [
        agent(identity(&authority, 1)),
        Arc::new(first_contact(authority.fingerprint()).unwrap()),
    ] {
        let refusal = shake(&client, &impostor).unwrap_err();
        assert!(refusal.starts_with("client: invalid peer"), "{refusal}");
    }
}

#[test]
fn an_authority_is_the_same_again_from_its_texts() {
    let first = authority();
    let again = Authority::from_pem(first.certificate_pem(), &first.key_pem()).unwrap();
    assert_eq!(again.fingerprint(), first.fingerprint());
    let of_one_text = Authority::from_text(&first.to_text()).unwrap();
    assert_eq!(of_one_text.certificate_pem(), first.certificate_pem());
    assert!(!of_one_text.certificate_pem().contains("PRIVATE"));
    assert_eq!(of_one_text.key_pem(), first.key_pem());
    assert!(shake(&agent(identity(&first, 1)), &server(&again, 0)).is_ok());
    assert!(shake(&agent(identity(&again, 1)), &server(&first, 0)).is_ok());
}

#[test]
fn derived_secrets_are_the_authoritys_own_and_each_its_words() {
    let (one, other) = (authority(), authority());
    let secret = one.derive(&["a", "b"]);
    let again = Authority::from_text(&one.to_text()).unwrap();
    assert_eq!(again.derive(&["a", "b"]), secret);
    for words in [&["a"][..], &["ab"], &["ab", ""], &["", "ab"], &["b", "a"]] {
        assert_ne!(one.derive(words), secret, "{words:?}");
    }
    assert_ne!(other.derive(&["a", "b"]), secret);
}

#[test]
fn texts_that_do_not_belong_together_are_refused() {
    let (one, other) = (authority(), authority());
    let mixed = Authority::from_pem(one.certificate_pem(), &other.key_pem());
    assert!(matches!(mixed, Err(PkiError::Mismatch)));
    assert!(Authority::from_pem("", &one.key_pem()).is_err());
    assert!(Authority::from_text("").is_err());
    assert!(Authority::from_text(one.certificate_pem()).is_err());
    assert!(Authority::from_text(&one.key_pem()).is_err());
    let key = HostKey::generate().unwrap();
    let request = CertificateRequest::from_pem(&key.request().unwrap()).unwrap();
    let issued = one.certify_host(&request, host(1), serial(1), NOW).unwrap();
    // A host's certificate is no authority's.
    assert!(Authority::from_pem(&issued.pem, &key.to_pem()).is_err());
    let stolen = Identity::new(
        &HostKey::generate().unwrap(),
        &issued.pem,
        one.certificate_pem(),
    );
    assert!(matches!(stolen, Err(PkiError::Mismatch)));
}

#[test]
fn a_broken_key_does_not_show_itself() {
    let pem = HostKey::generate().unwrap().to_pem();
    let broken = pem.replacen("MI", "AA", 1);
    let refusal = HostKey::from_pem(&broken).err().unwrap().to_string();
    assert!(
        !refusal.contains(broken.lines().nth(1).unwrap()),
        "{refusal}"
    );
    let kept = HostKey::from_pem(&pem).unwrap();
    assert_eq!(kept.to_pem(), pem);
}

#[test]
fn a_request_decides_nothing_but_the_key() {
    let authority = authority();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let uri = format!("urn:vimana:{}", host(66)).try_into().unwrap();
    params.subject_alt_names = vec![SanType::URI(uri)];
    let greedy = params.serialize_request(&key).unwrap().pem().unwrap();
    let request = CertificateRequest::from_pem(&greedy).unwrap();
    let key = HostKey::from_pem(&key.serialize_pem()).unwrap();
    assert_eq!(request.fingerprint(), key.fingerprint());
    let issued = authority
        .certify_host(&request, host(1), serial(1), NOW.plus_ms(DAY_MS))
        .unwrap();
    let identity = Identity::new(&key, &issued.pem, authority.certificate_pem()).unwrap();
    assert_eq!(identity.peer().host_id, host(1));
    assert_eq!(issued.key, identity.peer().key);
    assert!(Authority::from_pem(&issued.pem, &key.to_pem()).is_err());
}

#[test]
fn a_request_that_proves_nothing_is_refused() {
    let key = HostKey::generate().unwrap();
    let good = key.request().unwrap();
    let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let params = CertificateParams::default();
    let of_another_curve = params.serialize_request(&other).unwrap().pem().unwrap();
    // The last byte of the signature, before the closing line.
    let end = good.rfind("\n-----END").unwrap() - 4;
    let mut tampered = good.clone();
    let letter = if good.as_bytes().get(end) == Some(&b'A') {
        "B"
    } else {
        "A"
    };
    tampered.replace_range(end..=end, letter);
    let long = format!("{good}{}", " ".repeat(5000));
    for wrong in ["", "x", &tampered, &of_another_curve, &long] {
        let refused = CertificateRequest::from_pem(wrong);
        assert!(matches!(refused, Err(PkiError::Request(_))), "{wrong}");
    }
    assert!(CertificateRequest::from_pem(&good).is_ok());
}

#[test]
fn only_hosts_are_hosts() {
    let authority = authority();
    let der = |pem: &str| {
        use rustls::pki_types::pem::PemObject as _;
        rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    };
    let of_authority = der(authority.certificate_pem());
    assert!(matches!(
        PeerIdentity::from_der(&of_authority),
        Err(PkiError::NotAHost(_))
    ));
    let key = HostKey::generate().unwrap();
    let request = CertificateRequest::from_pem(&key.request().unwrap()).unwrap();
    let issued = authority
        .certify_host(&request, host(1), serial(1), NOW)
        .unwrap();
    let mut trailing = der(&issued.pem).to_vec();
    assert!(PeerIdentity::from_der(&trailing).is_ok());
    trailing.push(0);
    assert!(PeerIdentity::from_der(&trailing).is_err());
    assert!(PeerIdentity::from_der(b"").is_err());
}

#[test]
fn serial_numbers_keep_their_length_whatever_the_randomness() {
    let authority = authority();
    let key = HostKey::generate().unwrap();
    let request = CertificateRequest::from_pem(&key.request().unwrap()).unwrap();
    for byte in [0, 0x7f, 0x80, 0xff] {
        let serial = serial(byte);
        let issued = authority
            .certify_host(&request, host(1), serial, NOW)
            .unwrap();
        let identity = Identity::new(&key, &issued.pem, authority.certificate_pem()).unwrap();
        assert_eq!(identity.peer().serial, serial);
        assert_eq!(serial.to_string().parse(), Ok(serial));
    }
    assert!("".parse::<Serial>().is_err());
    assert_ne!(Fingerprint::of(b"a"), Fingerprint::of(b"b"));
}
