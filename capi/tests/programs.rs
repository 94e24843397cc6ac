//! Other languages: C and C++ through both libraries, Python through the shared one.

mod support;

use std::ffi::OsStr;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use annulus::{ABI, Field, KeyBytes, Kind, Session, Status, VersionParts};
use annulus_proto::Value;
use support::{FILE, put, session, table};

/// Strict enough for whoever includes the header.
const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-pedantic", "-Werror"];
/// What the static library needs of the system.
const SYSTEM: [&str; 3] = ["-lpthread", "-ldl", "-lm"];

#[test]
fn header_and_library_agree_on_every_number() {
    let mut program = String::from("#include \"annulus.h\"\n#include <stddef.h>\n");
    let mut line = 0;
    let mut claim = |claim: String| {
        line += 1;
        // C99 has no static assertion: an array of a negative size is an error that shows the line.
        program += &format!("typedef char claim_{line}[({claim}) ? 1 : -1];\n");
    };
    claim(format!("ANNULUS_ABI == {ABI}"));
    claim(format!("ANNULUS_KEY_MAX == {}", annulus_proto::limits::KEY_BYTES_MAX));
    for status in Status::ALL {
        let name = match status {
            Status::Live => "ANNULUS_LIVE",
            Status::Ended => "ANNULUS_ENDED",
            Status::Miss => "ANNULUS_MISS",
            Status::Expired => "ANNULUS_EXPIRED",
            Status::Stale => "ANNULUS_STALE",
            Status::Contended => "ANNULUS_CONTENDED",
            Status::Damaged => "ANNULUS_DAMAGED",
            Status::NotAttached => "ANNULUS_NOT_ATTACHED",
            Status::TooSmall => "ANNULUS_TOO_SMALL",
            Status::SlowDown => "ANNULUS_SLOW_DOWN",
            Status::Argument => "ANNULUS_E_ARGUMENT",
            Status::Open => "ANNULUS_E_OPEN",
            Status::Segment => "ANNULUS_E_SEGMENT",
            Status::Ambiguous => "ANNULUS_E_AMBIGUOUS",
            Status::Internal => "ANNULUS_E_INTERNAL",
        };
        claim(format!("{name} == {}", status.code()));
        let asks = (Status::Miss.code()..=Status::NotAttached.code()).contains(&status.code());
        claim(format!("ANNULUS_MUST_ASK({name}) == {}", i32::from(asks)));
    }
    for (name, kind) in [("NONE", Kind::None), ("BYTES", Kind::Bytes), ("MAP", Kind::Map)] {
        claim(format!("ANNULUS_{name} == {}", kind as u32));
    }
    macro_rules! layout {
        ($rust:ty, $c:literal: $($field:ident)*) => {
            claim(format!("sizeof({}) == {}", $c, size_of::<$rust>()));
            $(claim(format!(
                "offsetof({}, {}) == {}", $c, stringify!($field), offset_of!($rust, $field)
            ));)*
        };
    }
    layout!(VersionParts, "annulus_version": hlc node);
    layout!(KeyBytes, "annulus_key": bytes size);
    layout!(Session, "annulus_session": status kind birth version deadline_ms touched_ms
        read_at_ms value value_size needed);
    layout!(Field, "annulus_field": name name_size value value_size version expire_at_ms);
    program += "int main(void) { return annulus_abi() == ANNULUS_ABI ? 0 : 1; }\n";

    let dir = tempfile::tempdir().expect("a directory");
    for (compiler, source) in [("cc", "claims.c"), ("c++", "claims.cc")] {
        let source = dir.path().join(source);
        std::fs::write(&source, &program).expect("written");
        let standard = if compiler == "cc" { "-std=c99" } else { "-std=c++11" };
        // Unused types are the point here.
        let flags = [standard, "-Wno-unused-local-typedefs"];
        let binary = Binary::build(compiler, &source, dir.path(), &flags, Link::Shared);
        assert!(binary.run(&[]).status.success());
    }
}

#[test]
fn the_example_reads_through_the_shared_and_the_static_library() {
    for link in [Link::Shared, Link::Static] {
        let dir = tempfile::tempdir().expect("a directory");
        let (_writer, path) = table(dir.path(), FILE);
        let source = root().join("examples/read.c");
        let binary = Binary::build("cc", &source, dir.path(), &["-std=c99", "-O2"], link);
        let read = |key: &str, more: &[&OsStr]| {
            let output = binary.run(&[&[path.as_os_str(), key.as_ref()], more].concat());
            let code = output.status.code().expect("no signal ended it");
            (code, String::from_utf8(output.stdout).expect("text"))
        };

        let (code, text) = read("bytes", &["1000".as_ref()]);
        assert_eq!(code, 0, "{text}");
        assert!(text.starts_with("version 1700000000000.0@0123456789ab\nexpires in "), "{text}");
        assert!(text.contains("\nvalue value\n1000 of 1000 reads, "), "{text}");
        let (code, text) = read("map", &[]);
        assert!(text.ends_with("\nfield cart = 3\nfield user = ada\n"), "{text}");
        assert_eq!(code, 0);
        let (code, text) = read("large", &[]);
        assert_eq!((code, text.len() > 50_000), (0, true));
        assert_eq!(read("ended", &[]), (3, "ended\n".into()));
        assert_eq!(read("slowed", &[]), (5, "used too much: ask again later\n".into()));
        let miss = "not in this host's table: ask a node\n";
        assert_eq!(read("nobody", &[]), (4, miss.into()));

        let output = binary.run(&[dir.path().join("none").as_os_str(), "k".as_ref()]);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.starts_with("cannot read "), "{text}");
    }
}

#[test]
fn python_reads_and_attaches_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_writer, _) = table(dir.path(), FILE);
    // The segment that takes its place: there, everything is vouched for.
    let (mut next, _) = table(dir.path(), "next");
    put(&mut next, b"bytes", &session(Value::Bytes(b"anew".to_vec())));
    put(&mut next, b"stale", &session(Value::Bytes(b"fresh again".to_vec())));

    let mut python = Command::new("python3");
    python.arg("-B").arg(root().join("python/test_annulus.py")).current_dir(dir.path());
    python.env("ANNULUS_LIBRARY", library("libannulus.so"));
    python.env("ANNULUS_TEST_DIRECTORY", dir.path());
    let output = run(&mut python);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("\nOK"), "{text}");
}

#[derive(Clone, Copy)]
enum Link {
    Shared,
    Static,
}

struct Binary {
    path: PathBuf,
    libraries: PathBuf,
}

impl Binary {
    fn build(compiler: &str, source: &Path, dir: &Path, flags: &[&str], link: Link) -> Self {
        let path = source.file_stem().map(|name| dir.join(name)).expect("a file");
        let mut command = Command::new(compiler);
        command.args(WARNINGS).args(flags).arg("-I").arg(root().join("include"));
        command.arg(source).arg("-o").arg(&path);
        match link {
            Link::Static => command.arg(library("libannulus.a")).args(SYSTEM),
            Link::Shared => {
                // As it is installed: linked by its plain name, found at run time by the other.
                for name in ["libannulus.so", "libannulus.so.1"] {
                    let installed = dir.join(name);
                    if !installed.exists() {
                        std::os::unix::fs::symlink(library("libannulus.so"), installed)
                            .expect("linked");
                    }
                }
                command.arg("-L").arg(dir).arg("-lannulus")
            }
        };
        let output = run(&mut command);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{compiler} does not take {}: {text}", source.display());
        Self { path, libraries: dir.to_owned() }
    }

    fn run(&self, args: &[&OsStr]) -> Output {
        run(Command::new(&self.path).args(args).env("LD_LIBRARY_PATH", &self.libraries))
    }
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| {
        let name = command.get_program().to_owned();
        panic!("{}: {error}; these tests need cc, c++ and python3", name.display())
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One of the libraries that were built for this test: cargo puts them beside it.
fn library(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test is a file");
    let path = test.parent().expect("it is in a directory").join(name);
    assert!(path.exists(), "{} was not built", path.display());
    path
}
