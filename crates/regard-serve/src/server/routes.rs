//! The routes, and what every answer has: an id, a line in the log, a place among those answered at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_SECURITY_POLICY, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::log::{Entry, Usage};
use super::problem::Problem;
use super::reply::Reply;
use super::{Kind, State, chat, completions, door, embeddings, tokens};

/// Answers one request, whatever it is.
pub(super) async fn answer(state: Arc<State>, request: Request<Incoming>) -> Response<Reply> {
    let mut entry = Entry {
        id: id(&request),
        method: request.method().to_string(),
        path: request.uri().path().chars().take(100).collect(),
        status: None,
        usage: Usage::default(),
        user: None,
        cause: None,
        whole: false,
        began: Instant::now(),
        wanted: state.settings.log,
    };
    let mut response = match route(&state, request, &mut entry).await {
        Ok(response) => response,
        Err(mut problem) => {
            entry.cause = problem.cause.take();
            problem.into()
        }
    };
    entry.status = Some(response.status().as_u16());
    if let Ok(id) = HeaderValue::from_str(&entry.id) {
        response.headers_mut().insert("x-request-id", id);
    }
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"regard\""));
    }
    response.body_mut().entry = Some(entry);
    response
}

/// The client's own id where it is a short word; else a new one.
fn id(request: &Request<Incoming>) -> String {
    let given = request.headers().get("x-request-id").and_then(|id| id.to_str().ok());
    let short =
        |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    given.filter(short).map_or_else(|| format!("{:016x}", getrandom::u64().unwrap_or_default()), str::to_owned)
}

/// What answers with a body of fields.
#[derive(Clone, Copy)]
enum Post {
    Completions,
    Chat,
    Embeddings,
    Tokenize,
    Detokenize,
}

async fn route(state: &Arc<State>, request: Request<Incoming>, entry: &mut Entry) -> Result<Response<Reply>, Problem> {
    let path = request.uri().path().to_owned();
    door::admit(state, &path, request.headers())?;
    let post = match &*path {
        "/v1/completions" => Some(Post::Completions),
        "/v1/chat/completions" => Some(Post::Chat),
        "/v1/embeddings" => Some(Post::Embeddings),
        "/tokenize" => Some(Post::Tokenize),
        "/detokenize" => Some(Post::Detokenize),
        _ => None,
    };
    let Some(post) = post else {
        let response = get(state, &path)?;
        return if request.method() == Method::GET { Ok(response) } else { Ok(not_allowed("GET", &path)) };
    };
    if request.method() != Method::POST {
        return Ok(not_allowed("POST", &path));
    }
    let permit = door::seat(state)?;
    let body = door::body(state, request).await?;
    let mut response = match post {
        Post::Completions => completions::answer(state, body, entry).await?,
        Post::Chat => chat::answer(state, body, entry).await?,
        Post::Embeddings => embeddings::answer(state, body, entry).await?,
        Post::Tokenize => tokens::tokenize(state, body).await?,
        Post::Detokenize => tokens::detokenize(state, body).await?,
    };
    response.body_mut().permits.push(permit);
    Ok(response)
}

fn not_allowed(method: &'static str, path: &str) -> Response<Reply> {
    let message = format!("{path} answers {method} only");
    let mut response: Response<Reply> = Problem::new(StatusCode::METHOD_NOT_ALLOWED, message).into();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
    response
}

/// What is answered without a body.
fn get(state: &State, path: &str) -> Result<Response<Reply>, Problem> {
    match path {
        "/health" => Ok(Reply::json(&json!({ "status": "ok" }))),
        "/ready" => ready(state),
        "/metrics" => {
            Ok(Reply::whole(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", state.metrics.text(&state.served.name)))
        }
        "/v1/models" => Ok(Reply::json(&json!({ "object": "list", "data": [model(state)] }))),
        "/" => {
            let mut page = Reply::whole(StatusCode::OK, "text/html; charset=utf-8", include_str!("page.html"));
            let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
            page.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
            Ok(page)
        }
        _ => match path.strip_prefix("/v1/models/") {
            Some(name) if name == state.served.name => Ok(Reply::json(&model(state))),
            Some(_) => Err(state.no_such_model()),
            None => {
                let path: String = path.chars().take(100).collect();
                Err(Problem::new(StatusCode::NOT_FOUND, format!("there is no {path} here")))
            }
        },
    }
}

fn ready(state: &State) -> Result<Response<Reply>, Problem> {
    if state.stopping.load(Ordering::Relaxed) {
        return Err(Problem::shutting_down());
    }
    Ok(Reply::json(&json!({ "status": "ready", "model": state.served.name })))
}

fn model(state: &State) -> Value {
    let most = match &state.served.kind {
        Kind::Text(text) => text.model.context(),
        Kind::Embedder(embedder) => embedder.encoder().config().max_position_embeddings,
    };
    json!({
        "id": state.served.name,
        "object": "model",
        "created": state.created,
        "owned_by": "regard",
        "max_model_len": most,
        "max_attention_len": state.settings.limits.attention.min(most),
    })
}
