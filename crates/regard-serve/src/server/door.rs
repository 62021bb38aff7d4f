//! The door: who may come in, and how large a request may be.

use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::{Request, StatusCode};
use siphasher::sip128::{Hasher128, SipHasher24};
use tokio::sync::OwnedSemaphorePermit;

use super::problem::Problem;
use super::{ServeError, State};

/// The API key, as a hash under a secret of this process: what is compared then tells nothing by the time that it takes.
pub(super) struct Key {
    secret: [u8; 16],
    hash: u128,
}

impl Key {
    pub(super) fn new(key: &str, secret: [u8; 16]) -> Result<Self, ServeError> {
        Ok(Self { secret, hash: hash(&secret, key.as_bytes()) })
    }

    fn opens(&self, given: &[u8]) -> bool {
        hash(&self.secret, given) == self.hash
    }
}

fn hash(secret: &[u8; 16], key: &[u8]) -> u128 {
    let mut hasher = SipHasher24::new_with_key(secret);
    hasher.write(key);
    hasher.finish128().as_u128()
}

/// Lets a request in: with the key where there is one, and not from another site's page.
pub(super) fn admit(state: &State, path: &str, headers: &HeaderMap) -> Result<(), Problem> {
    if matches!(path, "/health" | "/ready") {
        return Ok(());
    }
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(HOST).unwrap_or_default();
    if let Some(key) = &state.key {
        let given = text(AUTHORIZATION).and_then(secret_of);
        if !given.is_some_and(|given| key.opens(&given)) {
            let message = "the API key is missing or wrong: send it as Authorization: Bearer KEY";
            return Err(Problem { code: Some("invalid_api_key"), ..Problem::new(StatusCode::UNAUTHORIZED, message) });
        }
    } else if state.addr.ip().is_loopback() && !is_ours(host, &state.settings.host) {
        // A page elsewhere may have its own name point here, and read what we answer as its own.
        return Err(Problem::new(StatusCode::FORBIDDEN, "the Host header does not name this machine"));
    }
    let same = |origin: &str| origin.split_once("://").is_some_and(|(_, origin)| origin == host);
    if headers.contains_key(ORIGIN) && !text(ORIGIN).is_some_and(same) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "the Origin header names another site"));
    }
    Ok(())
}

/// What `Bearer` or, from a browser, the password of `Basic` says.
fn secret_of(header: &str) -> Option<Vec<u8>> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().as_bytes().to_vec());
    }
    let pair = BASE64_STANDARD.decode(rest.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

fn is_ours(host: &str, own: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let number = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || name.eq_ignore_ascii_case(own) || number.is_ok_and(|ip| ip.is_loopback())
}

/// One of the requests that may be answered at once.
pub(super) fn seat(state: &State) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(&state.permits).try_acquire_owned().map_err(|_| {
        let message = format!("{} requests are being answered, and no more may: try again later", state.settings.limits.requests);
        Problem { code: Some("too_many_requests"), ..Problem::new(StatusCode::TOO_MANY_REQUESTS, message) }
    })
}

/// The body of a request, which must be JSON by its type, not too large and not too slow.
pub(super) async fn body(state: &State, request: Request<Incoming>) -> Result<Bytes, Problem> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind != "application/json" {
        let message = "the Content-Type header must be application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let most = state.settings.limits.body;
    let large = || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body may have {most} bytes"));
    let body = request.into_body();
    if body.size_hint().lower() > most as u64 {
        return Err(large());
    }
    match tokio::time::timeout(state.settings.read_timeout, Limited::new(body, most).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(large()),
        Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "the body ended before it was whole")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive")),
    }
}
