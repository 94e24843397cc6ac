//! `annulus init` and `annulus config`.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use annulus_node::config::{CONFIG_FILE, Config, Sources};
use anyhow::{Context, anyhow};
use serde_json::json;
use tracing_subscriber::EnvFilter;

use crate::args::{CheckArgs, Global, InitArgs, SettingFlags};
use crate::exit::Failed;
use crate::output::{self, Rows};

/// Writes the annotated configuration.
pub(crate) fn init(global: &Global, args: &InitArgs) -> anyhow::Result<()> {
    let text = Config::annotated();
    if args.file.as_deref() == Some(Path::new("-")) {
        return output::write(text.as_bytes());
    }
    let variable = || std::env::var_os("ANNULUS_CONFIG").map(PathBuf::from);
    let path = args.file.clone().or_else(|| global.config.clone()).or_else(variable);
    let path = path.unwrap_or_else(|| PathBuf::from(CONFIG_FILE));
    write_new(&path, &text, args.force)?;
    if global.json {
        return output::json(&json!({ "file": path.to_string_lossy() }));
    }
    output::message(format!(
        "wrote {}; every setting is commented out and says its default",
        path.display()
    ));
    Ok(())
}

fn write_new(path: &Path, text: &str, force: bool) -> anyhow::Result<()> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let mut file = options.open(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            anyhow!("{} is there already; --force replaces it", path.display())
        }
        _ => anyhow::Error::from(error).context(format!("writing {}", path.display())),
    })?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.with_context(|| format!("writing {}", path.display()))
}

/// Prints each value and where it came from.
pub(crate) fn check(global: &Global, args: &CheckArgs) -> anyhow::Result<()> {
    let config = load(global, &args.settings)?;
    log_filter(&config)?;
    if global.json {
        let settings = config.explain().into_iter();
        let settings = settings.map(|(key, value, origin)| {
            json!({ "key": key, "value": value, "from": origin.to_string() })
        });
        return output::json(&json!({
            "file": config.file().map(Path::to_string_lossy),
            "settings": settings.collect::<Vec<_>>(),
            "warnings": config.warnings(),
        }));
    }
    warn(&config);
    let mut rows = Rows::new(&["KEY", "VALUE", "FROM"]);
    for (key, value, origin) in config.explain() {
        rows.push([key, value, origin.to_string()]);
    }
    rows.print()?;
    match config.file() {
        Some(file) => output::message(format!("{} is right", file.display())),
        None => output::message(format!("no configuration file; {CONFIG_FILE} is the usual one")),
    }
    Ok(())
}

/// The configuration from file, environment and flags.
pub(crate) fn load(global: &Global, flags: &SettingFlags) -> anyhow::Result<Config> {
    let flags = flags.with_global(global);
    Ok(Config::load(Sources { file: global.config.clone(), flags, ..Sources::from_process() })?)
}

/// The filter of log lines.
pub(crate) fn log_filter(config: &Config) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(config.log()).map_err(|error| {
        Failed::usage(format!(
            "log = {:?}: {error}; write a level such as info, or a list such as \
             info,annulus_node::core=debug",
            config.log()
        ))
    })
}

/// Says what is probably not meant.
pub(crate) fn warn(config: &Config) {
    for warning in config.warnings() {
        output::message(format!("annulus: warning: {warning}"));
    }
}
