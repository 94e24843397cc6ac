//! The web application in real processes: two of them at different nodes of three serve the same browser, the node of
//! one is killed, and who has logged out stays out.

#[path = "shared/addr.rs"]
mod addr;
#[path = "shared/until.rs"]
mod until;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use annulus_client::{Client, StartOptions, Value};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use addr::free_addr;
use until::until;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    /// A node: that of the counters is one like any other.
    fn node(dir: &Path, node: SocketAddr, nodes: &[SocketAddr]) -> Self {
        let seeds: Vec<String> =
            nodes.iter().filter(|other| **other != node).map(SocketAddr::to_string).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_annulus-counter"));
        command
            .args(["--counters", &free_addr().to_string(), "--listen", &node.to_string()])
            .args(["--cluster", &cluster(), "--down-after", "1s"])
            .args(["--seeds", &seeds.join(","), "--data-dir"])
            .arg(dir.join(node.port().to_string()));
        Self::start(&mut command)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The application, at one node.
struct App {
    addr: SocketAddr,
    node: SocketAddr,
    process: Process,
}

impl App {
    fn start(node: SocketAddr) -> Self {
        let addr = free_addr();
        Self { addr, node, process: Self::process(addr, node) }
    }

    fn process(addr: SocketAddr, node: SocketAddr) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_annulus-web"));
        command
            .args(["--listen", &addr.to_string(), "--node", &node.to_string()])
            .args(["--cluster", &cluster(), "--sessions-per-user", "3"])
            .stderr(Stdio::null());
        Process::start(&mut command)
    }

    /// It ends while its node does not answer yet, and is started anew then.
    fn wait_for(&mut self) {
        until("the application serves", || {
            if self.process.0.try_wait().unwrap().is_some() {
                self.process = Self::process(self.addr, self.node);
            }
            TcpStream::connect(self.addr).ok()
        });
    }
}

/// A browser, of one user.
#[derive(Clone, Default)]
struct Browser {
    cookie: Option<String>,
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Browser {
    /// Asks until it is served, and keeps the cookie it is given.
    #[track_caller]
    fn ask(&mut self, app: &App, method: &str, path: &str, form: &str) -> Answer {
        let answer = until("it is answered", || {
            let answer = exchange(app.addr, method, path, form, self.cookie.as_deref())?;
            if answer.status == 503 {
                assert_eq!(answer.headers["retry-after"], "1");
            }
            (answer.status != 503).then_some(answer)
        });
        if let Some(cookie) = answer.headers.get("set-cookie") {
            for wanted in ["; HttpOnly", "; SameSite=Lax", "; Path=/"] {
                assert!(cookie.contains(wanted), "{wanted} is missing");
            }
            let pair = cookie.split(';').next().unwrap();
            self.cookie = Some(pair.to_owned()).filter(|pair| pair != "sid=");
        }
        answer
    }

    #[track_caller]
    fn get(&mut self, app: &App, path: &str) -> String {
        let answer = self.ask(app, "GET", path, "");
        assert_eq!(answer.status, 200);
        answer.body
    }

    #[track_caller]
    fn post(&mut self, app: &App, path: &str, form: &str) -> Answer {
        self.ask(app, "POST", path, form)
    }

    #[track_caller]
    fn log_in(&mut self, app: &App, user: &str) {
        let before = self.cookie.clone();
        assert_eq!(self.post(app, "/login", &format!("user={user}")).status, 303);
        assert_ne!(self.cookie, before, "another key");
        assert!(self.cookie.is_some());
    }

    /// Whether somebody else with this cookie would be logged in. Who is found to be logged out only when the page is saved,
    /// since the session ended meanwhile, is sent back without a cookie.
    #[track_caller]
    fn is_in(&self, app: &App) -> bool {
        let mut other = self.clone();
        let answer = other.ask(app, "GET", "/", "");
        if answer.status == 303 {
            assert_eq!(other.cookie, None);
            return false;
        }
        assert_eq!(answer.status, 200);
        answer.body.contains("Hello ada")
    }
}

/// One request; `None` if it is not answered.
fn exchange(
    app: SocketAddr,
    method: &str,
    path: &str,
    form: &str,
    cookie: Option<&str>,
) -> Option<Answer> {
    let mut stream = TcpStream::connect_timeout(&app, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let cookie = cookie.map_or(String::new(), |cookie| format!("Cookie: {cookie}\r\n"));
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {app}\r\nConnection: close\r\n{cookie}\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    Some(Answer { status, headers: headers.collect(), body: body.to_owned() })
}

fn cluster() -> String {
    format!("web-{}", std::process::id())
}

fn wait_for_three_homes(nodes: &[SocketAddr]) {
    let seeds = nodes.iter().map(SocketAddr::to_string);
    let builder = Client::builder().cluster(cluster()).seeds(seeds);
    let runtime = Runtime::new().unwrap();
    let client = until("a node answers", || runtime.block_on(builder.clone().connect()).ok());
    until("the cluster has formed", || {
        let start = client.start("probe", Value::Bytes(Vec::new()), StartOptions::default());
        runtime.block_on(start).ok().filter(|started| started.homes == 3)
    });
}

/// The number of views on a page.
fn views(page: &str) -> u64 {
    let (_, views) = page.split_once("Views: ").unwrap();
    views.split('<').next().unwrap().parse().unwrap()
}

#[test]
fn who_is_logged_in_stays_so_at_any_node_and_who_has_logged_out_stays_out() {
    let dir = TempDir::new().unwrap();
    let nodes: Vec<SocketAddr> = (0..3).map(|_| free_addr()).collect();
    let mut processes: Vec<Process> =
        nodes.iter().map(|node| Process::node(dir.path(), *node, &nodes)).collect();
    let (mut one, mut two) = (App::start(nodes[0]), App::start(nodes[1]));
    one.wait_for();
    two.wait_for();

    wait_for_three_homes(&nodes);

    // What was counted goes on after the login, under another key; the old one is worth nothing.
    let mut ada = Browser::default();
    assert_eq!([views(&ada.get(&one, "/")), views(&ada.get(&two, "/"))], [1, 2]);
    let anonymous = ada.clone();
    ada.log_in(&one, "ada");
    assert!(!anonymous.is_in(&one) && !anonymous.is_in(&two));
    let page = ada.get(&two, "/");
    assert!(page.contains("Hello ada"));
    assert_eq!(views(&page), 3);
    // Nobody begins a session under a key of his own choice.
    let chosen = format!("sid={}", "0a".repeat(32));
    let mut fixed = Browser { cookie: Some(chosen.clone()) };
    fixed.get(&one, "/");
    assert!(fixed.cookie.is_some() && fixed.cookie != Some(chosen));
    assert_eq!(fixed.post(&one, "/login", "user=%3Cscript%3E").status, 400);
    assert_eq!(fixed.ask(&one, "GET", "/logout", "").status, 404);

    // Her other browsers are listed, and logged out at once.
    let mut others = [Browser::default(), Browser::default()];
    others[0].log_in(&one, "ada");
    others[1].log_in(&two, "ada");
    let list = ada.get(&two, "/sessions");
    assert_eq!((list.matches("<li>").count(), list.matches("(this one)").count()), (3, 1));
    for browser in others.iter().chain([&ada]) {
        let (_, key) = browser.cookie.as_ref().unwrap().split_once('=').unwrap();
        assert!(!list.contains(key), "a key is on a page");
    }
    // A fourth one is too many: the login ends the one that was used longest ago.
    ada.get(&one, "/");
    let mut fourth = Browser::default();
    fourth.log_in(&one, "ada");
    until("the first of the others is out", || {
        (!others[0].is_in(&one) && !others[0].is_in(&two)).then_some(())
    });
    assert!(others[1].is_in(&one) && fourth.is_in(&two));
    others[0] = fourth;
    assert!(ada.post(&one, "/logout-elsewhere", "").body.contains("2 other sessions ended"));
    until("they are logged out at both", || {
        let is_in = others.iter().any(|other| other.is_in(&one) || other.is_in(&two));
        (!is_in).then_some(())
    });
    assert!(ada.is_in(&one) && ada.is_in(&two));

    // The node of one dies.
    let counted = views(&ada.get(&one, "/"));
    drop(processes.remove(0));
    let page = ada.get(&two, "/");
    assert!(page.contains("Hello ada"), "logged out by the death of a node");
    assert_eq!(views(&page), counted + 1);
    assert!(ada.get(&one, "/").contains("Hello ada"), "the other nodes serve it");

    // Who logs out stays out, whoever else has the cookie.
    let stolen = ada.clone();
    assert_eq!(ada.post(&two, "/logout", "").status, 303);
    assert_eq!(ada.cookie, None);
    until("out at both", || (!stolen.is_in(&one) && !stolen.is_in(&two)).then_some(()));
    assert_eq!(views(&ada.get(&one, "/")), 1, "it begins anew");
}
