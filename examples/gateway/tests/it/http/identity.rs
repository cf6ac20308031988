//! Callers as the configuration describes them: tokens, JSON Web Tokens, context, and TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::client::Client;
use super::programs::{Folder, Running, TestGateway, config, grant, grant_with, upstream};
use crate::operator;

/// Allows `add` for one tenant, and counts `echo` for each user.
fn of_tenant() -> Value {
    json!({ "version": "1", "default": "deny", "tools": {
        "add": { "require": [{ "conditions": [{ "path": "context.tenant", "op": "eq", "value": "acme" }],
            "on_deny": "Not your tenant." }] },
        "echo": { "limits": [{ "counter": "echoes", "window": "day", "max": 1, "scope": "user" }] },
    } })
}

fn sum(client: &Client) -> String {
    client.call_text(1, "add", &json!({ "a": 1, "b": 1 }))
}

#[test]
fn policies_see_the_context_of_a_grant() {
    let acme = grant_with("acme", r#"context = { tenant = "acme", seats = 3 }"#);
    let other = grant_with("other", r#"context = { tenant = "other" }"#);
    let house = TestGateway::with(&of_tenant(), &[acme, other, grant("none")], &["--json"], "");
    assert_eq!(sum(&house.client("acme").begin()), "2");
    for name in ["other", "none"] {
        assert_eq!(sum(&house.client(name).begin()), "[POLICY DENIED] Not your tenant.", "{name}");
    }
}

/// An issuer with one key.
struct Issuer {
    key: EncodingKey,
    kid: String,
}

impl Issuer {
    fn new(seed: u8) -> Self {
        // The private key of Ed25519, in the form of PKCS #8.
        let mut der = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
        der.extend([seed; 32]);
        Self { key: EncodingKey::from_ed_der(&der), kid: format!("key-{seed}") }
    }

    /// Returns the key set with the public key.
    fn keys(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, Algorithm::EdDSA).unwrap();
        jwk.common.key_id = Some(self.kid.clone());
        json!(JwkSet { keys: vec![jwk] })
    }

    /// Returns a valid token with changed claims.
    fn token(&self, changes: &Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({
            "iss": "https://id.example.com/", "aud": "toolgate", "exp": now + 600, "sub": "mary",
            "toolgate_grant": "staff", "org": "acme",
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        encode(&header, &claims, &self.key).unwrap()
    }
}

fn of_issuer() -> (TestGateway, Issuer) {
    let issuer = Issuer::new(7);
    let settings = r#"
        issuers = [{ issuer = "https://id.example.com/", audience = ["toolgate"], keys = "keys.json",
            grant_claim = "toolgate_grant", context = { tenant = "org" } }]"#;
    let server = upstream(&["--json"]);
    let folder = Folder::new();
    folder.write("policy.json", &of_tenant());
    folder.write("keys.json", &issuer.keys());
    let staff = grant("staff").replace("user = \"mary\"\n", "");
    folder.configure(&config(server.address, settings, &[staff]));
    let gateway = Running::start(TestGateway::command(&folder));
    (TestGateway { folder, server, gateway, settings: settings.to_owned() }, issuer)
}

#[test]
fn claims_give_grant_user_and_context() {
    let (house, issuer) = of_issuer();
    let client = |changes: Value| house.client(&issuer.token(&changes)).begin();
    assert_eq!(sum(&client(json!({}))), "2");
    assert_eq!(sum(&client(json!({ "org": "other" }))), "[POLICY DENIED] Not your tenant.");
    for user in ["mary", "john"] {
        let echo = |n| client(json!({ "sub": user })).call_text(n, "echo", &json!({ "text": "x" }));
        assert_eq!(echo(1), "x", "{user} has a counter of their own");
        assert!(echo(2).starts_with("[RATE LIMITED]"));
    }
    let callers = operator::get(&house.socket(), "/api/callers").unwrap();
    assert_eq!(callers["callers"][0]["caller"]["user"], "john");
    // Users of one grant do not share sessions.
    let mary = client(json!({}));
    let mut john = client(json!({ "sub": "john" }));
    john.session = mary.session.clone();
    assert_eq!(john.ask(1, "ping", &json!({})).status, 404);
}

#[test]
fn a_token_that_is_not_valid_is_refused() {
    let (house, issuer) = of_issuer();
    let status = |token: &str| house.client(token).ask(1, "ping", &json!({})).status;
    assert_eq!(status(&issuer.token(&json!({}))), 200);
    for (changes, why) in [
        (json!({ "exp": 1_000_000_000 }), "expired"),
        (json!({ "nbf": 9_000_000_000_u64 }), "not valid yet"),
        (json!({ "aud": "another" }), "another audience"),
        (json!({ "aud": null }), "no audience"),
        (json!({ "iss": "https://evil.example.com/" }), "another issuer"),
        (json!({ "toolgate_grant": "admin" }), "an unknown grant"),
        (json!({ "toolgate_grant": null }), "no grant"),
        (json!({ "toolgate_grant": ["staff"] }), "a list of grants"),
    ] {
        assert_eq!(status(&issuer.token(&changes)), 401, "{why}");
    }
    let token = issuer.token(&json!({}));
    let (head, rest) = token.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    // {"alg":"none"}
    let unsigned = format!("eyJhbGciOiJub25lIn0.{payload}.");
    let forged = Issuer { kid: issuer.kid.clone(), ..Issuer::new(8) }.token(&json!({}));
    for token in [unsigned, forged, format!("{head}.{payload}."), format!("{head}.{payload}.A{}", &signature[1..])] {
        assert_eq!(status(&token), 401, "{token}");
    }
    // The key is replaced while the gateway runs.
    let next = Issuer::new(9);
    house.folder.write("keys.json", &next.keys());
    house.reload().unwrap();
    assert_eq!((status(&next.token(&json!({}))), status(&issuer.token(&json!({})))), (200, 401));
    house.folder.write("keys.json", &json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] }));
    assert!(house.reload().unwrap_err().contains("keys.json: keys[0]: a shared secret is not a public key"));
    assert_eq!(status(&next.token(&json!({}))), 200);
}

#[test]
fn the_gateway_serves_tls_and_renews_its_certificate() {
    let house = TestGateway::new(&json!({ "version": "1", "default": "allow" }), "");
    let folder = Folder::new();
    let renew = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.file("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.file("key.pem"), made.signing_key.serialize_pem()).unwrap();
        made.cert.der().clone()
    };
    let certificate = renew();
    folder.write("policy.json", &json!({ "version": "1", "default": "allow" }));
    let tls = r#"tls = { certificate = "cert.pem", key = "key.pem" }"#;
    folder.configure(&config(house.server.address, tls, &[grant("g")]));
    let gateway = Running::start(TestGateway::command(&folder));
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let head = String::from_utf8(Client::new(gateway.address, "g").head("POST", ping.len())).unwrap();
    let ask = |trusted: &rustls::pki_types::CertificateDer<'static>| -> std::io::Result<String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connection = rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, TcpStream::connect(gateway.address)?);
        write!(stream, "{}{ping}", head.replace("Accept:", "Connection: close\r\nAccept:"))?;
        let mut answer = String::new();
        // The server may close the connection without an alert.
        let _ = stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    assert!(ask(&certificate).unwrap().starts_with("HTTP/1.1 200 OK"));
    let renewed = renew();
    super::programs::eventually(|| ask(&renewed).is_ok(), || "the certificate is not renewed".into());
    assert!(ask(&certificate).is_err());
    std::fs::write(folder.file("key.pem"), "nonsense").unwrap();
    gateway.wait_for_log("key.pem: ");
    assert!(ask(&renewed).is_ok(), "the former certificate stays in force");
    // Plain HTTP gets nowhere.
    let mut plain = TcpStream::connect(gateway.address).unwrap();
    write!(plain, "{head}{ping}").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{}", answer.escape_ascii());
}

#[test]
fn each_server_has_its_path_its_sessions_and_its_policy() {
    let (first, second) = (upstream(&["--json"]), upstream(&["--json"]));
    let folder = Folder::new();
    folder.write("policy.json", &json!({ "version": "1", "default": "deny", "tools": { "add": {} } }));
    folder.write("all.json", &json!({ "version": "1", "default": "allow" }));
    let both = format!(
        "servers.second = {{ url = \"http://{}/mcp\", path = \"/second\" }}\npolicies.all = \"all.json\"\n",
        second.address
    );
    let config = config(first.address, &both, &[grant_with("g", "servers.second = \"all\"")]);
    folder.configure(
        &config
            .replace("policies = { p = \"policy.json\" }", "policies.p = \"policy.json\"")
            .replace("servers.upstream = { url = ", "servers.upstream.url = ")
            .replace(&format!("{}/mcp\" }}", first.address), &format!("{}/mcp\"", first.address)),
    );
    let gateway = Running::start(TestGateway::command(&folder));
    let client = |path: &str| Client { path: path.to_owned(), ..Client::new(gateway.address, "g") };
    let (mcp, other) = (client("/mcp").begin(), client("/second").begin());
    assert_eq!(mcp.tools(1), ["add"]);
    assert_eq!(mcp.call_text(2, "add", &json!({ "a": 1, "b": 1 })), "2");
    assert!(mcp.call_text(3, "echo", &json!({ "text": "x" })).starts_with("[POLICY DENIED]"));
    assert_eq!(other.call_text(3, "echo", &json!({ "text": "x" })), "x");
    let stranger = Client { session: mcp.session.clone(), ..client("/second") };
    assert_eq!(stranger.ask(1, "ping", &json!({})).status, 404, "a session belongs to one server");
    assert_eq!(client("/third").ask(1, "ping", &json!({})).status, 404);
}
