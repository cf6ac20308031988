//! Connections of a host's own, logins that change, TLS, the rights of users, and the check.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use toolgate::approval::redis::RedisApprovals;
use toolgate::store::redis::{BuildError, RedisStore, RedisStoreBuilder, Server as Target, client};
use toolgate::{AsyncGate, Decision};

use super::server::{Node, Server, free_port};
use super::{builder, call, code, decide, gate, resumes, run};

fn store(server: impl Into<Target>) -> RedisStoreBuilder {
    RedisStore::builder(server)
        .connect_timeout(Duration::from_secs(5))
        .response_timeout(Duration::from_secs(5))
        .deadline(Duration::from_secs(10))
        .circuit_breaker(50, Duration::from_millis(100))
}

/// Returns the cause of a denial with its own causes.
async fn cause(gate: &AsyncGate<RedisStore>) -> String {
    let Decision::Deny(denial) = decide(gate).await else { panic!("not denied") };
    let error: &dyn std::error::Error = denial.store_error().unwrap();
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[test]
fn urls_of_deployments_are_read() {
    let message = |url: &str| RedisStore::builder(url).build().map(drop).map_err(|error| error.to_string());
    for url in [
        "redis+cluster://a:1",
        "redis+cluster://user:p%40ss@a,b:7000,[::1]:7001/0",
        "redis+sentinel://a/gate",
        "redis+sentinel://user:pass@a,b:26380/my-gate.eu/3",
        "rediss+sentinel://a/gate",
        "rediss+cluster://a:1",
    ] {
        assert_eq!(message(url), Ok(()), "{url}");
    }
    for (url, want) in [
        ("redis+cluster://", "redis+cluster://node"),
        ("redis+cluster://a,,b", "redis+cluster://node"),
        ("redis+cluster://a/1", "redis+cluster://node"),
        ("redis+sentinel://a", "master-name"),
        ("redis+sentinel://a/", "master-name"),
        ("redis+sentinel://a/gate/x", "master-name"),
        ("redis+sentinel://a/ga te", "master-name"),
        ("rediss://a:1/#insecure", "`#insecure`"),
    ] {
        assert!(message(url).unwrap_err().contains(want), "{url}");
    }
    let source = RedisStore::builder("redis+sentinel://a").build().unwrap_err();
    assert!(matches!(&source, BuildError::Url { source, .. } if source.to_string().contains("master is missing")));
    // A password is in no output.
    let shown = format!("{:?}", RedisStore::builder(client::Client::open("redis://u:secret@a").unwrap()));
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn any_connection_serves() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let client = client::Client::open(server.url()).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        let over = gate(store(Target::over(connection)).build().unwrap(), 3);
        let own = gate(store(client.clone()).build().unwrap(), 3);
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let made_by = Target::connect_with(move || {
            count.fetch_add(1, Ordering::SeqCst);
            let client = client.clone();
            async move { client.get_multiplexed_async_connection().await }
        });
        let function = gate(store(made_by).build().unwrap(), 3);
        for gate in [&over, &own, &function] {
            assert_eq!(code(gate).await, "allow");
        }
        assert_eq!(code(&own).await, "rate_limited");
        // Tasks share the connection, and one of them asks for the next.
        assert_eq!(made.load(Ordering::SeqCst), 1);
        server.command::<i64>(&[b"CLIENT", b"KILL", b"TYPE", b"normal"]);
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let function = function.clone();
                tokio::spawn(async move { code(&function).await })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), "rate_limited");
        }
        assert_eq!(made.load(Ordering::SeqCst), 2);
        // A connection that the host made cannot be replaced.
        assert!(cause(&over).await.contains("broken pipe") || cause(&over).await.contains("closed"));
    });
}

#[test]
fn a_function_that_fails_is_asked_again() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let (asked, url) = (Arc::new(AtomicUsize::new(0)), server.url());
        let count = Arc::clone(&asked);
        let target = Target::url_with(move || {
            let (turn, url) = (count.fetch_add(1, Ordering::SeqCst), url.clone());
            async move {
                match turn {
                    0..6 => Err("the token service is down"),
                    6 => Ok("not a URL".to_owned()),
                    _ => Ok(url),
                }
            }
        });
        let gate = gate(store(target).circuit_breaker(2, Duration::from_millis(300)).build().unwrap(), 3);
        assert_eq!(cause(&gate).await, "the token service is down");
        cause(&gate).await;
        // The breaker is open: the function is not asked, and the denial says why.
        let before = asked.load(Ordering::SeqCst);
        let shown = cause(&gate).await;
        assert!(shown.contains("several times in a row: the token service is down"), "{shown}");
        assert_eq!(asked.load(Ordering::SeqCst), before);
        resumes(&gate).await;
    });
}

#[test]
fn a_rotated_password_denies_no_call() {
    let Some(server) = Server::start(&[]) else { return };
    let set = |password: &str| {
        let password = format!(">{password}");
        server.command::<()>(&[b"ACL", b"SETUSER", b"gate", b"reset", b"on", password.as_bytes(), b"~*", b"+@all"]);
    };
    set("one");
    run(async {
        let password = Arc::new(Mutex::new("one"));
        let (address, current) = (server.url(), Arc::clone(&password));
        let rotating = Target::url_with(move || {
            let url = format!("{address}?user=gate&pass={}", current.lock());
            async move { Ok::<_, std::convert::Infallible>(url) }
        });
        let rotating = gate(store(rotating).build().unwrap(), 100);
        let fixed = gate(store(format!("{}?user=gate&pass=one", server.url())).build().unwrap(), 100);
        for next in ["two", "three"] {
            assert!(decide(&rotating).await.is_allowed());
            set(next);
            *password.lock() = next;
            server.command::<i64>(&[b"CLIENT", b"KILL", b"USER", b"gate"]);
            for _ in 0..3 {
                assert!(decide(&rotating).await.is_allowed());
            }
        }
        let shown = cause(&fixed).await;
        assert!(shown.contains("Server::url_with"), "{shown}");
        // The old password is valid again.
        set("one");
        resumes(&fixed).await;
    });
}

#[test]
fn a_name_that_leads_to_a_new_master_is_followed() {
    let (Some(first), Some(second)) = (Server::start(&[]), Server::start(&[])) else { return };
    run(async {
        let address = Arc::new(Mutex::new(first.url()));
        let name = Arc::clone(&address);
        let target = Target::url_with(move || {
            let url = name.lock().clone();
            async move { Ok::<_, std::convert::Infallible>(url) }
        });
        let gate = gate(store(target).build().unwrap(), 3);
        assert!(decide(&gate).await.is_allowed());
        // The old master is up, and a replica now.
        first.command::<()>(&[b"REPLICAOF", b"127.0.0.1", b"1"]);
        let shown = cause(&gate).await;
        assert!(shown.contains("the server is a replica"), "{shown}");
        *address.lock() = second.url();
        assert!(decide(&gate).await.is_allowed());
    });
}

/// Makes an authority, and a certificate for the server and for a client.
fn certificates(folder: &Path) {
    let file = |name: &str| folder.join(name).display().to_string();
    let openssl = |arguments: &[&str]| {
        let status = Command::new("openssl").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.unwrap().success(), "openssl {arguments:?}");
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let ca = ["req", "-x509", "-subj", "/CN=test authority", "-keyout", &file("ca.key"), "-out", &file("ca.pem")];
    openssl(&[&ca[..], &key].concat());
    for (name, names) in
        [("server", "subjectAltName=DNS:localhost,IP:127.0.0.1"), ("client", "subjectAltName=DNS:gate")]
    {
        let (own_key, own) = (file(&format!("{name}.key")), file(&format!("{name}.pem")));
        let (ca, ca_key) = (file("ca.pem"), file("ca.key"));
        let signed = ["-CA", &ca, "-CAkey", &ca_key, "-addext", names, "-addext", "basicConstraints=critical,CA:FALSE"];
        let request = ["req", "-x509", "-subj", "/CN=localhost", "-keyout", &own_key, "-out", &own];
        openssl(&[&request[..], &key, &signed].concat());
    }
}

#[cfg(feature = "redis-tls")]
#[test]
fn client_certificates_and_a_private_authority_serve() {
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "openssl must be on the PATH");
        eprintln!("skipped: openssl is not on the PATH");
        return;
    }
    let folder = std::env::temp_dir().join(format!("toolgate-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    certificates(&folder);
    let file = |name: &str| folder.join(name).display().to_string();
    let port = free_port().to_string();
    let options = ["--tls-port", &port, "--tls-cert-file", &file("server.pem"), "--tls-key-file", &file("server.key")];
    let Some(server) = Server::start(&[&options[..], &["--tls-ca-cert-file", &file("ca.pem")]].concat()) else {
        return;
    };
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let url = format!("rediss://localhost:{port}");
    let connect = |certificates| client::Client::build_with_tls(&*url, certificates).unwrap();
    let root_cert = Some(read("ca.pem"));
    let with_certificate = connect(client::TlsCertificates {
        client_tls: Some(client::ClientTlsConfig { client_cert: read("client.pem"), client_key: read("client.key") }),
        root_cert: root_cert.clone(),
    });
    let without = connect(client::TlsCertificates { client_tls: None, root_cert });
    run(async {
        let with_certificate = gate(store(with_certificate).build().unwrap(), 2);
        assert_eq!([code(&with_certificate).await, code(&with_certificate).await], ["allow", "allow"]);
        server.command::<i64>(&[b"CLIENT", b"KILL", b"TYPE", b"normal"]);
        assert_eq!(code(&with_certificate).await, "rate_limited");
        assert_eq!(code(&gate(store(without).build().unwrap(), 2)).await, "store_unavailable");
        // The authority is not one of the system's.
        let shown = cause(&gate(store(&*url).build().unwrap(), 2)).await;
        assert!(shown.contains("certificate"), "{shown}");
    });
    std::fs::remove_dir_all(&folder).unwrap();
}

/// The rights of a user, from a doc comment.
pub(super) fn documented_rights(source: &str, start: &str) -> Vec<String> {
    let text = source.replace("\n/// ", " ");
    let sentence = text.split(start).nth(1).unwrap().split('.').next().unwrap();
    let rights = sentence.split('`').skip(1).step_by(2).map(|right| right.replace("{prefix}", "{toolgate}"));
    rights.collect()
}

/// The commands that a script calls.
fn called(script: &str) -> impl Iterator<Item = String> {
    let calls = script.split("call('").skip(1).map(|rest| rest.split('\'').next().unwrap().to_owned());
    calls.map(|name| format!("+{}", name.to_lowercase()))
}

pub(super) fn set_user(server: &Server, rights: &[&str]) {
    let login: [&[u8]; 6] = [b"ACL", b"SETUSER", b"gate", b"reset", b"on", b">secret"];
    server.command::<()>(&[&login[..], &rights.iter().map(|right| right.as_bytes()).collect::<Vec<_>>()].concat());
}

pub(super) const COUNTERS: &str = include_str!("../../../../src/store/redis/mod.rs");
const APPROVALS: &str = include_str!("../../../../src/approval/redis/mod.rs");

#[test]
fn the_documented_rights_are_those_of_the_scripts() {
    let scripts = [
        include_str!("../../../../src/store/redis/reserve.lua"),
        include_str!("../../../../src/store/redis/settle.lua"),
        include_str!("../../../../src/store/redis/reset.lua"),
    ];
    let approvals = [include_str!("../../../../src/approval/redis/put.lua")];
    for (source, scripts, start, own) in [
        (COUNTERS, &scripts[..], "server user for the store needs", &["+del"][..]),
        (APPROVALS, &approvals, "A user for the store needs", &["+get", "+mget", "+zrange"]),
    ] {
        let mut needed: Vec<_> = scripts.iter().flat_map(|script| called(script)).collect();
        needed
            .extend(own.iter().chain(&["~{toolgate}:*", "+evalsha", "+script|load"]).map(|right| (*right).to_owned()));
        let mut documented = documented_rights(source, start);
        for rights in [&mut needed, &mut documented] {
            rights.sort();
            rights.dedup();
        }
        assert_eq!(documented, needed);
    }
}

#[test]
fn the_check_names_each_missing_right() {
    let Some(server) = Server::start(&["--appendonly", "yes"]) else { return };
    run(async {
        let url = format!("{}?user=gate&pass=secret", server.url());
        let counters = store(&*url).build().unwrap();
        let approvals = RedisApprovals::builder(&*url).build().unwrap();
        for (source, start, of_counters) in
            [(COUNTERS, "server user for the store needs", true), (APPROVALS, "A user for the store needs", false)]
        {
            let rights = documented_rights(source, start);
            let check = async || match of_counters {
                true => counters.check().await,
                false => approvals.check().await,
            };
            let granted: Vec<_> = rights.iter().map(|right| &**right).chain(["+info"]).collect();
            set_user(&server, &granted);
            let report = check().await;
            assert!(report.findings().is_empty(), "{report}");
            assert!(report.version().is_some() && report.skew_millis().is_some(), "{report:?}");
            assert_eq!((report.role(), report.eviction()), (Some("master"), Some("noeviction")));
            for (missing, right) in granted.iter().enumerate() {
                let mut fewer = granted.clone();
                fewer.remove(missing);
                set_user(&server, &fewer);
                let report = check().await;
                let shown = report.to_string();
                let help = match right.strip_prefix('+') {
                    Some(_) => format!("grant `{right}`"),
                    None => "grant the keys".to_owned(),
                };
                assert!(shown.contains(&help), "{right}: {shown}");
                assert_eq!(report.is_ready(), *right == "+info", "{right}: {shown}");
            }
        }
        // A decision says so too.
        set_user(&server, &["~*", "+@all", "-script|load"]);
        server.command::<()>(&[b"SCRIPT", b"FLUSH"]);
        let gate = gate(store(&*url).build().unwrap(), 3);
        let shown = cause(&gate).await;
        assert!(shown.contains("may lack `+script|load`"), "{shown}");
        set_user(&server, &["~*", "+@all", "-mget"]);
        let shown = cause(&gate).await;
        assert!(shown.contains("lacks a permission"), "{shown}");
        // A database of its own needs one right more.
        let rights = documented_rights(COUNTERS, "server user for the store needs");
        let mut granted: Vec<_> = rights.iter().map(|right| &**right).collect();
        let other = gate_at(&format!("{url}&db=1"));
        set_user(&server, &granted);
        assert_eq!(code(&other).await, "store_unavailable");
        granted.push("+select");
        set_user(&server, &granted);
        assert_eq!(code(&other).await, "allow");
    });
}

fn gate_at(url: &str) -> AsyncGate<RedisStore> {
    gate(store(url).build().unwrap(), 3)
}

#[test]
fn the_check_finds_servers_that_are_wrong() {
    let Some(node) = Node::start(&["--maxmemory-policy", "volatile-lru"]) else { return };
    run(async {
        let check = async |url: &str| store(url).build().unwrap().check().await;
        let report = check(&node.server.url()).await;
        assert_eq!(report.eviction(), Some("volatile-lru"));
        assert!(!report.is_ready() && report.to_string().contains("set `maxmemory-policy noeviction`"), "{report}");
        assert!(report.to_string().contains("warning: the server keeps no log"), "{report}");
        node.ask::<()>("CONFIG SET maxmemory-policy noeviction");
        assert!(check(&node.server.url()).await.is_ready());
        node.ask::<()>("REPLICAOF 127.0.0.1 1");
        let report = check(&node.server.url()).await;
        assert!(!report.is_ready() && report.to_string().contains("is a replica"), "{report}");
        let report = check("redis://127.0.0.1:1").await;
        assert!(!report.is_ready() && report.to_string().contains("cannot be reached: "), "{report}");
        let renamed = Server::start(&["--rename-command", "EVALSHA", ""]).unwrap();
        let report = check(&renamed.url()).await;
        assert!(report.to_string().contains("EVALSHA fails"), "{report}");
        let shown = cause(&gate_at(&renamed.url())).await;
        assert!(shown.contains("cannot run scripts") && shown.contains("unknown command"), "{shown}");
    });
}

/// Tokio offers no way to find out that a runtime lacks I/O or time: it panics.
#[test]
fn a_runtime_of_its_own_serves_any_executor() {
    let Some(server) = Server::start(&[]) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let gate = gate(builder(&server.url()).runtime(runtime.handle().clone()).build().unwrap(), 3);
    // No executor, and one without I/O and time.
    assert_eq!(crate::polling::block_on(code(&gate)), "allow");
    let bare = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(bare.block_on(code(&gate)), "allow");
    drop(bare);
    assert_eq!(run(async { gate.check(&call()).await.as_str().to_owned() }), "allow");
    assert_eq!(crate::polling::block_on(code(&gate)), "rate_limited");
}
