//! A small web application that keeps its sessions in Annulus: log in, count views, list one's sessions, log out
//! everywhere else. Any number of these may run, each at whatever node: they share the sessions.
//!
//! ```text
//! annulus node &
//! cargo run -p annulus-examples --bin annulus-web -- --listen 127.0.0.1:3000 --node 127.0.0.1:7946
//! curl -c jar -b jar -d user=ada http://127.0.0.1:3000/login
//! curl -c jar -b jar http://127.0.0.1:3000/
//! ```
//!
//! It asks for no password, which would have nothing to do with sessions. `sessions.rs` is the part to copy.

mod sessions;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use annulus_client::{Client, Error};
use clap::Parser;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE, LOCATION, RETRY_AFTER, SET_COOKIE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use sessions::{Session, Settings};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

#[derive(Parser)]
#[command(about = "A web application that keeps its sessions in Annulus")]
struct Args {
    /// Where to serve browsers.
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// A node, host:port; may be repeated.
    #[arg(long)]
    node: Vec<String>,
    /// The Unix socket of this host's node.
    #[arg(long)]
    socket: Option<PathBuf>,
    /// The cluster's name.
    #[arg(long, default_value = "annulus")]
    cluster: String,
    /// Have cookies sent over TLS alone: where something in front of this speaks it.
    #[arg(long)]
    secure: bool,
    /// How many sessions a user has at most: a login ends those that were used longest ago. 0 = any number.
    #[arg(long, default_value_t = 0)]
    sessions_per_user: usize,
}

/// Browsers at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 1_024;
const BODY_BYTES_MAX: usize = 4_096;
const USER_BYTES_MAX: usize = 64;
/// When to come again that could not be served.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

type Answer = Response<Full<Bytes>>;

#[derive(Clone)]
struct App(Settings);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut builder = Client::builder().cluster(&args.cluster).seeds(args.node);
    if let Some(socket) = args.socket {
        builder = builder.local_socket(socket);
    }
    let client = builder.software("annulus-web").connect().await?;
    let app = App(Settings {
        table: client.table("sessions"),
        is_secure: args.secure,
        per_user_max: args.sessions_per_user,
    });
    let listener = TcpListener::bind(args.listen).await?;
    println!("serving at http://{}", listener.local_addr()?);
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = connections.clone().acquire_owned().await?;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let app = app.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let app = app.clone();
                async move { Ok::<_, Infallible>(app.serve(request).await) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
            // That a browser goes away is nobody's fault.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
            drop(place);
        });
    }
}

impl App {
    /// The session around each request, as a middleware: load, have it answered, save.
    async fn serve(&self, request: Request<Incoming>) -> Answer {
        let cookies = request.headers().get_all(COOKIE).iter();
        let cookies: Vec<String> =
            cookies.filter_map(|it| it.to_str().ok()).map(str::to_owned).collect();
        let cookies = cookies.iter().map(String::as_str);
        let served = async {
            let mut session = Session::load(self.0.clone(), cookies).await?;
            let answer = route(&mut session, request).await?;
            Ok((answer, session.save().await?))
        };
        let (mut answer, cookie) = match served.await {
            Ok(served) => served,
            // The user has logged out in another tab: as whoever comes without a cookie.
            Err(error) if sessions::is_gone(&error) => {
                (back(), Some(sessions::forget(self.0.is_secure)))
            }
            Err(error) => (failed(&error), None),
        };
        if let Some(cookie) = cookie {
            let cookie = cookie.parse().expect("it is made of digits and words");
            answer.headers_mut().insert(SET_COOKIE, cookie);
        }
        answer
    }
}

async fn route(session: &mut Session, request: Request<Incoming>) -> Result<Answer, Error> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    // Whatever changes something is a POST, which browsers send no cookie with from another site.
    match (&method, path.as_str()) {
        (&Method::GET, "/") => Ok(home(session)),
        (&Method::GET, "/sessions") => list(session).await,
        (&Method::POST, "/login") => match user_in(request).await {
            Some(user) => {
                session.log_in(&user).await?;
                Ok(back())
            }
            None => Ok(page(StatusCode::BAD_REQUEST, "<p>Who? 1 to 64 letters and digits.</p>")),
        },
        (&Method::POST, "/logout") => {
            session.log_out().await?;
            Ok(back())
        }
        (&Method::POST, "/logout-elsewhere") => {
            let ended = session.log_out_elsewhere().await?;
            Ok(page(StatusCode::OK, &format!("<p>{ended} other sessions ended.</p>")))
        }
        _ => Ok(page(StatusCode::NOT_FOUND, "<p>There is nothing here.</p>")),
    }
}

fn home(session: &mut Session) -> Answer {
    let views = session.number("views") + 1;
    session.set_number("views", views);
    let who = match session.user() {
        Some(user) => format!(
            "<p>Hello {user}.</p><p><a href=/sessions>My sessions</a></p>\
             <form method=post action=/logout-elsewhere><button>Log out everywhere else</button></form>\
             <form method=post action=/logout><button>Log out</button></form>"
        ),
        None => "<form method=post action=/login><input name=user><button>Log in</button></form>"
            .to_owned(),
    };
    page(StatusCode::OK, &format!("{who}<p>Views: {views}</p>"))
}

async fn list(session: &Session) -> Result<Answer, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ago = |ms: u64| format!("{} s ago", (now.as_millis() as u64).saturating_sub(ms) / 1_000);
    let rows = session.all_of_user().await?.into_iter().map(|(session, is_this)| {
        let listed = session.listed;
        let this = if is_this { " (this one)" } else { "" };
        format!("<li>used {}, begun {}{this}</li>", ago(listed.touched), ago(listed.birth.hlc.ms()))
    });
    Ok(page(StatusCode::OK, &format!("<ul>{}</ul>", rows.collect::<String>())))
}

/// The user that a form names.
async fn user_in(request: Request<Incoming>) -> Option<String> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await.ok()?.to_bytes();
    let pairs = str::from_utf8(&body).ok()?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, user) = pairs.into_iter().find(|(name, _)| *name == "user")?;
    let is_user = (1..=USER_BYTES_MAX).contains(&user.len())
        && user.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_user.then(|| user.to_owned())
}

/// What the browser is told if the session could not be loaded, changed or saved.
fn failed(error: &Error) -> Answer {
    let seconds = |wait: Duration| wait.as_millis().div_ceil(1_000).max(1).to_string();
    let (status, wait) = match error {
        Error::SlowDown { retry_after } => (StatusCode::TOO_MANY_REQUESTS, Some(*retry_after)),
        Error::Unavailable { .. }
        | Error::TimedOut
        | Error::NoNode { .. }
        | Error::Disconnected { .. }
        | Error::TableFull { .. } => (StatusCode::SERVICE_UNAVAILABLE, Some(AGAIN_AFTER)),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, None),
    };
    if wait.is_none() {
        eprintln!("annulus-web: {error}");
    }
    let mut answer = page(status, &format!("<p>{status}</p>"));
    if let Some(wait) = wait {
        let wait = seconds(wait).parse().expect("a number");
        answer.headers_mut().insert(RETRY_AFTER, wait);
    }
    answer
}

fn page(status: StatusCode, body: &str) -> Answer {
    let html = format!("<!doctype html><meta charset=utf-8><title>Annulus</title>{body}\n");
    let answer = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "text/html; charset=utf-8")
        .header(CACHE_CONTROL, "no-store");
    answer.body(html.into()).expect("its parts are valid")
}

fn back() -> Answer {
    let mut answer = page(StatusCode::SEE_OTHER, "");
    answer.headers_mut().insert(LOCATION, "/".parse().expect("a path"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_told_what_became_of_its_session() {
        let told = |error| {
            let answer = failed(&error);
            let wait = answer.headers().get(RETRY_AFTER).map(|it| it.to_str().unwrap().to_owned());
            (answer.status().as_u16(), wait)
        };
        let wait = |seconds: &str| Some(seconds.to_owned());
        let retry_after = Duration::from_millis(2_001);
        assert_eq!(told(Error::SlowDown { retry_after }), (429, wait("3")));
        assert_eq!(told(Error::SlowDown { retry_after: Duration::ZERO }), (429, wait("1")));
        let unavailable = Error::Unavailable { answered: 1, needed: 2, homes: 3 };
        for error in [unavailable, Error::TimedOut, Error::NoNode { tried: Vec::new() }] {
            assert_eq!(told(error), (503, wait("1")));
        }
        assert_eq!(told(Error::Refused(String::new())), (500, None));
    }
}
