//! Who may call: the file of grants, read again whenever it or a policy's file changes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use toolgate::{Access, Clock, Grants, Policy, SystemClock, Timestamp, ToolCall};

use crate::gateway::file::{self, Stamp, complaint};

/// How many requests one grant may have under way: what it floods takes no room from others.
const UNDER_WAY: usize = 256;
/// A grant, as the gateway knows its holder.
#[derive(Clone)]
pub(crate) struct Holder {
    pub(crate) grant: Arc<str>,
    pub(crate) policy: Box<str>,
    user: Option<String>,
    agent: Option<String>,
    revoked: bool,
    expires_at: Option<Timestamp>,
    /// One for each request under way.
    pub(crate) slots: Arc<Semaphore>,
}

impl Holder {
    /// The call, made by this holder.
    pub(crate) fn names<'a>(&'a self, call: ToolCall<'a>) -> ToolCall<'a> {
        call.grant(&*self.grant).user(self.user.as_deref()).agent(self.agent.as_deref())
    }

    /// Whether the grant is neither revoked nor expired.
    pub(crate) fn is_good(&self) -> bool {
        !self.revoked && self.expires_at.is_none_or(|end| SystemClock.now() < end)
    }
}

/// All holders at one moment.
#[derive(Default)]
pub(crate) struct Holders {
    by_token: HashMap<[u8; 32], Arc<Holder>>,
    by_grant: HashMap<Arc<str>, Arc<Holder>>,
}

impl Holders {
    /// Whose token this is. Tokens are compared by their digests alone, so that time tells nothing of them.
    pub(crate) fn of_token(&self, token: &[u8]) -> Option<&Arc<Holder>> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        self.by_token.get(&digest)
    }

    pub(crate) fn of_grant(&self, grant: &str) -> Option<&Arc<Holder>> {
        self.by_grant.get(grant)
    }

    /// The names of the policies that grants have, some of them more than once.
    pub(crate) fn policies(&self) -> Vec<String> {
        self.by_grant.values().map(|holder| String::from(&*holder.policy)).collect()
    }

    /// Takes the place of `former`, in force at once for every call that is decided from now on. The slots of grants that stay
    /// stay with them.
    pub(crate) fn put_in_force<S>(&mut self, policies: Vec<(String, Policy)>, former: &Self, grants: &Grants<S>) {
        let named: Vec<String> = policies.iter().map(|(name, _)| name.clone()).collect();
        for (name, policy) in policies {
            grants.replace_policy(&name, policy);
        }
        for gone in former.by_grant.keys().filter(|grant| !self.by_grant.contains_key(*grant)) {
            grants.forget(gone);
        }
        let mut kept = HashMap::new();
        for (grant, holder) in &self.by_grant {
            let before = former.of_grant(grant);
            // One that is given again was revoked by a former file alone.
            if before.is_some_and(|before| before.revoked) && !holder.revoked {
                grants.forget(grant);
            }
            if !holder.revoked {
                // Its name is not empty, and it is not revoked.
                let _ = grants.grant(grant, Access::to(&holder.policy).on_any_server().until(holder.expires_at));
            } else if before.is_none_or(|before| !before.revoked) {
                grants.revoke(grant);
            }
            if let Some(before) = before {
                kept.insert(Arc::clone(grant), Arc::clone(&before.slots));
            }
        }
        for name in former.by_grant.values().map(|holder| &holder.policy) {
            if !named.iter().any(|named| **named == **name) {
                grants.remove_policy(name);
            }
        }
        let renewed = |holder: &Arc<Holder>| match kept.get(&holder.grant) {
            None => Arc::clone(holder),
            Some(slots) => Arc::new(Holder { slots: Arc::clone(slots), ..(**holder).clone() }),
        };
        self.by_grant = self.by_grant.values().map(|holder| (Arc::clone(&holder.grant), renewed(holder))).collect();
        for holder in self.by_token.values_mut() {
            if let Some(renewed) = self.by_grant.get(&holder.grant) {
                *holder = Arc::clone(renewed);
            }
        }
    }
}

/// What stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: String,
    policies: Files,
    grants: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    grant: String,
    policy: String,
    token_sha256: Vec<String>,
    user: Option<String>,
    agent: Option<String>,
    expires_at: Option<String>,
    #[serde(default)]
    revoked: bool,
}

/// The file of each policy, by the policy's name.
struct Files(BTreeMap<String, PathBuf>);

/// As a map reads itself, but that no name may stand there twice.
impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Files;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of file names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Files, A::Error> {
                let mut files = BTreeMap::new();
                while let Some((name, file)) = map.next_entry::<String, PathBuf>()? {
                    if files.contains_key(&name) {
                        return Err(de::Error::custom(format_args!("policy `{name}` is there twice")));
                    }
                    files.insert(name, file);
                }
                Ok(Files(files))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// The file of grants, and the files of policies that it names.
pub(crate) struct GrantsFile {
    path: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    stamps: Vec<(PathBuf, Option<Stamp>)>,
    /// Of all that was read.
    content: Option<[u8; 32]>,
    /// What was wrong last time: said once.
    complaint: Option<String>,
}

/// What the files say, read and found right as a whole.
pub(crate) struct Reading {
    pub(crate) holders: Holders,
    pub(crate) policies: Vec<(String, Policy)>,
}

impl GrantsFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, seen: Mutex::default() }
    }

    /// Reads everything, whether it has changed or not, and hands it to `put` if it is right: no other reading comes between. It
    /// gives back what to tell people.
    pub(crate) fn read(&self, put: impl FnOnce(Reading)) -> Result<String, String> {
        let mut seen = self.seen.lock();
        let read = self.read_all(&mut seen);
        seen.complaint = read.as_ref().err().cloned();
        read.map(|read| read.put(put))
    }

    /// The same, if any file has changed. A complaint that was made before is not made again.
    pub(crate) fn look(&self, put: impl FnOnce(Reading)) -> Option<Result<String, String>> {
        let mut seen = self.seen.lock();
        if !seen.stamps.iter().any(|(path, stamp)| Stamp::of(path) != *stamp || stamp.is_some_and(Stamp::is_fresh)) {
            return None;
        }
        let before = seen.content;
        let read = self.read_all(&mut seen);
        let complaint = read.as_ref().err().cloned();
        let is_news = complaint != seen.complaint || (complaint.is_none() && before != seen.content);
        seen.complaint = complaint;
        is_news.then(|| read.map(|read| read.put(put)))
    }

    fn read_all(&self, seen: &mut Seen) -> Result<Reading, String> {
        seen.stamps = vec![(self.path.clone(), Stamp::of(&self.path))];
        seen.content = None;
        let bytes = read(&self.path)?;
        let mut content = Sha256::new_with_prefix(&bytes);
        let said = |error: &dyn fmt::Display| format!("{}: {error}", self.path.display());
        let document: Document = serde_json::from_slice(&bytes).map_err(|error| said(&error))?;
        if document.version != "1" {
            return Err(said(&"`version` must be \"1\""));
        }
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let mut policies = Vec::new();
        for (name, file) in &document.policies.0 {
            let path = folder.join(file);
            seen.stamps.push((path.clone(), Stamp::of(&path)));
            let bytes = read(&path)?;
            content.update(Sha256::digest(&bytes));
            let policy = Policy::from_slice(&bytes).map_err(|error| complaint(&path, &error))?;
            policies.push((name.clone(), policy));
        }
        let mut holders = Holders::default();
        for entry in document.grants {
            let of = |error: &dyn fmt::Display| said(&format_args!("grant `{}`: {error}", entry.grant));
            if entry.grant.is_empty() || holders.by_grant.contains_key(&*entry.grant) {
                return Err(of(&"a grant has a name of its own"));
            }
            if !document.policies.0.contains_key(&entry.policy) {
                return Err(of(&format_args!("there is no policy `{}`", entry.policy)));
            }
            let expires_at = entry.expires_at.as_deref().map(str::parse::<Timestamp>).transpose();
            let holder = Arc::new(Holder {
                grant: entry.grant.as_str().into(),
                policy: entry.policy.as_str().into(),
                user: entry.user.clone(),
                agent: entry.agent.clone(),
                revoked: entry.revoked,
                expires_at: expires_at.map_err(|error| of(&error))?,
                slots: Arc::new(Semaphore::new(UNDER_WAY)),
            });
            for digest in &entry.token_sha256 {
                let digest = of_hex(digest).ok_or_else(|| of(&"`token_sha256` has 64 hexadecimal digits each"))?;
                if holders.by_token.insert(digest, Arc::clone(&holder)).is_some() {
                    return Err(of(&"one of its tokens is there twice"));
                }
            }
            holders.by_grant.insert(Arc::clone(&holder.grant), holder);
        }
        seen.content = Some(content.finalize().into());
        Ok(Reading { holders, policies })
    }
}

impl Reading {
    fn put(self, put: impl FnOnce(Self)) -> String {
        let news = format!("{} grants and {} policies are in force", self.holders.by_grant.len(), self.policies.len());
        put(self);
        news
    }
}

/// The digest of a token, as the file of grants has it.
pub(crate) fn digest_of(token: &[u8]) -> String {
    Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of_hex(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(digest)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    file::read(path).map(|(bytes, _)| bytes).map_err(|error| format!("{}: {error}", path.display()))
}
