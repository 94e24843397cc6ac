//! The architecture is what is absent; `docs/architecture.md` says so, and this holds it to that.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above").to_owned()
}

/// The names in a crate's `[dependencies]`.
fn dependencies(room: &str) -> Vec<String> {
    let manifest = root().join(room).join("Cargo.toml");
    let text = fs::read_to_string(&manifest).expect("a room has a manifest");
    let manifest: toml::Table = text.parse().expect("a manifest is TOML");
    let table = manifest.get("dependencies").and_then(|table| table.as_table());
    table.into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

fn sources(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(directory).expect("a directory of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source is text");
            found.push((path, text));
        }
    }
}

/// Lines of code, without comments, that contain one of these words.
fn mentions(files: &[(PathBuf, String)], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn each_room_depends_on_the_rooms_it_may() {
    for (room, allowed) in [
        ("proto", &[][..]),
        ("slots", &["annulus-proto"]),
        ("seal", &["annulus-proto"]),
        ("net", &[]),
        ("shm", &[]),
        ("sketch", &[]),
        ("resp", &[]),
        ("gossip", &["annulus-proto"]),
        ("client", &["annulus-net", "annulus-proto", "annulus-seal", "annulus-shm"]),
        ("capi", &["annulus-proto", "annulus-shm"]),
        (
            "node",
            &[
                "annulus-gossip",
                "annulus-net",
                "annulus-proto",
                "annulus-resp",
                "annulus-seal",
                "annulus-shm",
                "annulus-sketch",
                "annulus-slots",
            ],
        ),
    ] {
        let ours = dependencies(room).into_iter().filter(|name| name.starts_with("annulus"));
        let ours: Vec<String> = ours.collect();
        assert_eq!(ours, allowed, "what {room} depends on");
    }
}

#[test]
fn rooms_that_do_no_io_cannot() {
    for room in ["proto", "slots", "gossip", "shm", "sketch", "resp", "capi"] {
        let forbidden = |name: &String| name.starts_with("tokio") || name == "turmoil";
        let found: Vec<String> = dependencies(room).into_iter().filter(forbidden).collect();
        assert!(found.is_empty(), "{room} depends on {found:?}");
    }
    assert!(!dependencies("shm").contains(&"serde".to_owned()));
}

#[test]
fn the_envelope_has_the_traits_of_streams_and_nothing_else_of_tokio() {
    let manifest = fs::read_to_string(root().join("seal/Cargo.toml")).expect("there is one");
    let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
    let tokio = &manifest["dependencies"]["tokio"];
    assert_eq!(tokio["default-features"].as_bool(), Some(false));
    let features = tokio["features"].as_array().expect("a list");
    assert_eq!(features, &[toml::Value::from("io-util")]);
    let mut files = Vec::new();
    sources(&root().join("seal/src"), &mut files);
    files.retain(|(path, _)| !path.ends_with("tests.rs"));
    let forbidden =
        ["std::fs", "std::net::Tcp", "std::net::Udp", "Instant", "SystemTime", "HashMap", "rand::"];
    let found = mentions(&files, &forbidden);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn hub_and_cores_see_no_key() {
    let mut files = Vec::new();
    sources(&root().join("node/src/core"), &mut files);
    let found = mentions(&files, &["Keyring", "annulus_seal::Key", "SealedStream", "KeyText"]);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn hub_and_cores_see_nothing_of_redis() {
    let mut files = Vec::new();
    sources(&root().join("node/src/core"), &mut files);
    let found = mentions(&files, &["annulus_resp"]);
    assert!(found.is_empty(), "{found:#?}");
    // And what speaks it has neither sockets nor clocks of its own.
    let mut files = Vec::new();
    for place in ["resp/src", "node/src/driver/door"] {
        sources(&root().join(place), &mut files);
    }
    let door = root().join("node/src/driver/door.rs");
    files.push((door.clone(), fs::read_to_string(door).expect("a source is text")));
    let found = mentions(&files, &["std::fs", "TcpStream", "Instant::", "SystemTime", "HashMap"]);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_core_sees_no_socket_clock_file_thread_or_hidden_order() {
    let mut files = Vec::new();
    let node = root().join("node/src");
    sources(&node.join("core"), &mut files);
    let text = fs::read_to_string(node.join("core.rs")).expect("the core is there");
    files.push((node.join("core.rs"), text));
    let forbidden = [
        "tokio",
        "async ",
        ".await",
        "std::fs",
        "std::thread",
        "std::env",
        "UdpSocket",
        "TcpStream",
        "Instant::",
        "SystemTime",
        "HashMap",
        "HashSet",
        "rand::random",
        "rand::rng(",
        "crate::driver",
    ];
    let found = mentions(&files, &forbidden);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn unsafe_code_lives_in_shm_and_at_the_boundary_to_c_alone() {
    let mut files = Vec::new();
    for room in ["proto", "slots", "seal", "net", "gossip", "client", "node", "cli"] {
        sources(&root().join(room).join("src"), &mut files);
    }
    // Of the boundary one file: what it calls is safe again.
    sources(&root().join("capi/src"), &mut files);
    files.retain(|(path, _)| !path.ends_with("capi/src/calls.rs"));
    let found = mentions(&files, &["unsafe ", "unsafe_code"]);
    assert!(found.is_empty(), "{found:#?}");
}
