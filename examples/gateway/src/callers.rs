//! The holders of tokens: by digests, and by JSON Web Tokens.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, JwkSet};
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use toolgate::{Access, AsyncGrants, Clock, Policy, SystemClock, Timestamp};

use crate::host::Store;
use crate::who::Who;

/// The holder of a token.
#[derive(Clone)]
pub(crate) struct Holder {
    pub(crate) who: Who,
    /// The policy on each server, and on all others.
    pub(crate) policies: HashMap<Option<String>, String>,
    pub(crate) revoked: bool,
    pub(crate) expires_at: Option<Timestamp>,
    /// One for each request under way, of all holders of the grant.
    pub(crate) slots: Arc<Semaphore>,
    /// A turn for each long message of theirs that is judged at once.
    pub(crate) turns: Arc<Semaphore>,
}

impl Holder {
    pub(crate) fn grant(&self) -> &str {
        self.who.grant.as_deref().unwrap_or_default()
    }

    /// Returns whether the grant is neither revoked nor expired.
    pub(crate) fn is_good(&self) -> bool {
        !self.revoked && self.expires_at.is_none_or(|end| SystemClock.now() < end)
    }
}

/// Everyone who may call, at one moment.
#[derive(Default)]
pub(crate) struct Callers {
    pub(crate) allow_origins: Vec<String>,
    pub(crate) by_token: HashMap<[u8; 32], Arc<Holder>>,
    pub(crate) by_grant: BTreeMap<String, Arc<Holder>>,
    pub(crate) issuers: Vec<Issuer>,
}

impl Callers {
    /// Returns the holder of a token. Digests are compared, so the time says nothing about tokens.
    pub(crate) fn of_token(&self, token: &[u8]) -> Option<Arc<Holder>> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let of_issuer = || self.issuers.iter().find_map(|issuer| issuer.holder(token, &self.by_grant));
        self.by_token.get(&digest).cloned().or_else(of_issuer)
    }

    /// Puts these callers in the place of the former ones, for every call that is decided from now
    /// on. The requests under way still count.
    pub(crate) fn put_in_force(&mut self, policies: Vec<(String, Policy)>, former: &Self, grants: &AsyncGrants<Store>) {
        let names: Vec<String> = policies.iter().map(|(name, _)| name.clone()).collect();
        for (name, policy) in policies {
            grants.replace_policy(&name, policy);
        }
        let is_revoked = |grant: &String| self.by_grant.get(grant).is_some_and(|holder| holder.revoked);
        for (grant, _) in former.by_grant.iter().filter(|(grant, before)| before.revoked && !is_revoked(grant)) {
            grants.forget(grant, "the configuration");
        }
        let of_holder = |holder: &Holder| -> Vec<Access> {
            let access = |(server, policy): (&Option<String>, &String)| match server {
                None => Access::to(policy).on_any_server().until(holder.expires_at),
                Some(server) => Access::to(policy).on(server).until(holder.expires_at),
            };
            holder.policies.iter().map(access).collect()
        };
        let given = self.by_grant.iter().filter(|(_, holder)| !holder.revoked);
        // No name is empty.
        let _ = grants.replace_all(
            given.flat_map(|(grant, holder)| of_holder(holder).into_iter().map(|access| (grant.as_str(), access))),
            "the configuration",
        );
        for (grant, _) in self.by_grant.iter().filter(|(_, holder)| holder.revoked) {
            grants.revoke(grant, "the configuration");
        }
        for policy in former.by_grant.values().flat_map(|holder| holder.policies.values()) {
            if !names.contains(policy) {
                grants.remove_policy(policy);
            }
        }
        let kept = |holder: &mut Arc<Holder>| {
            if let Some(before) = former.by_grant.get(holder.grant()) {
                let (slots, turns) = (Arc::clone(&before.slots), Arc::clone(&before.turns));
                *holder = Arc::new(Holder { slots, turns, ..(**holder).clone() });
            }
        };
        self.by_grant.values_mut().for_each(kept);
        self.by_token.values_mut().for_each(kept);
    }
}

/// An issuer of JSON Web Tokens, and the way from claims to a caller.
pub(crate) struct Issuer {
    /// Each key with its id and the checks for its tokens.
    pub(crate) keys: Vec<(Option<String>, DecodingKey, Validation)>,
    pub(crate) grant_claim: Option<String>,
    pub(crate) grant: Option<String>,
    pub(crate) user_claim: String,
    pub(crate) agent_claim: Option<String>,
    pub(crate) context: BTreeMap<String, String>,
}

impl Issuer {
    pub(crate) fn keys(
        set: &JwkSet,
        issuer: &str,
        audience: &[String],
    ) -> Result<Vec<(Option<String>, DecodingKey, Validation)>, String> {
        let key = |(index, jwk): (usize, &jsonwebtoken::jwk::Jwk)| {
            if matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_)) {
                return Err(format!("keys[{index}]: a shared secret is not a public key"));
            }
            let key = DecodingKey::from_jwk(jwk).map_err(|error| format!("keys[{index}]: {error}"))?;
            let mut validation = Validation::new_for_family(key.family());
            validation.set_issuer(&[issuer]);
            validation.set_audience(audience);
            validation.set_required_spec_claims(&["exp", "iss", "aud"]);
            validation.validate_nbf = true;
            Ok((jwk.common.key_id.clone(), key, validation))
        };
        set.keys.iter().enumerate().map(key).collect()
    }

    /// Returns the holder of a token of this issuer, if it is valid and its grant exists.
    fn holder(&self, token: &[u8], grants: &BTreeMap<String, Arc<Holder>>) -> Option<Arc<Holder>> {
        let kid = decode_header(token).ok()?.kid;
        let fits = |key: &&(Option<String>, _, _)| kid.is_none() || key.0 == kid;
        let claims = self.keys.iter().filter(fits).find_map(|(_, key, validation)| {
            decode::<Map<String, Value>>(token, key, validation).ok().map(|token| token.claims)
        })?;
        let text = |claim: &String| claims.get(claim).and_then(Value::as_str).map(str::to_owned);
        let grant = match self.grant_claim.as_ref().filter(|claim| claims.contains_key(*claim)) {
            Some(claim) => text(claim)?,
            None => self.grant.clone()?,
        };
        let mut holder = Holder::clone(grants.get(&grant)?);
        let of_claims =
            self.context.iter().filter_map(|(name, claim)| Some((name.clone(), claims.get(claim)?.clone())));
        let mut context = holder.who.context.take().unwrap_or_default();
        context.extend(of_claims);
        holder.who.context = Some(context).filter(|context| !context.is_empty());
        holder.who.user = text(&self.user_claim);
        holder.who.agent = self.agent_claim.as_ref().map_or(holder.who.agent, text);
        let expires_at = claims.get("exp").and_then(Value::as_i64).map(Timestamp::from_unix_seconds);
        holder.expires_at = expires_at.into_iter().chain(holder.expires_at).min();
        Some(Arc::new(holder))
    }
}

/// Reads the digest of a token as the configuration has it.
pub(crate) fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest).ok().map(|()| digest)
}
